import { logprobsBackward, logprobsForward } from "../../kernels/logprobs/kernel.ts";
import { record } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { ShapeError } from "../errors.ts";
import { refuseOthers } from "./cross_entropy.ts";

/** Options of {@linkcode logprobs}. */
export interface LogprobOptions {
  /** Rows with this target get 0 and no gradient. Default: −100. */ readonly ignoreIndex?: number;
  /** Divisor of the logits. Default: 1. */ readonly temperature?: number;
}

/** Statistics of each row of logits, f32 (…); 0 in ignored rows. Only `logprobs` has a gradient. */
export interface LogprobStatistics {
  /** log p(target), in nats. */ readonly logprobs: Tensor;
  /** Entropy −Σ p log p, in nats. */ readonly entropy: Tensor;
  /** Mean of the logits. */ readonly mean: Tensor;
  /** 1 if no logit is greater than the target's, otherwise 0. */ readonly hit: Tensor;
}

/**
 * Log-probability of each row's target under softmax(logits / temperature), like `torch.log_softmax` and `gather`. At
 * temperature 1, {@linkcode crossEntropy} is the negative of their mean. dlogits = (onehot(target) − softmax(logits /
 * temperature)) · dy / temperature.
 *
 * @param logits f32 (…, V)
 * @param targets i32 (…): a class from 0 to V − 1 for each row, or `ignoreIndex`
 * @returns f32 (…), in nats
 * @throws {ShapeError} when the shapes disagree, or a target written by the host is not a class. Targets computed on
 *   the device are not checked; one that is not a class counts as class V − 1
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { logprobs } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const logits = device.tensor([0, 0, 0, 0, 1000, 0], [3, 2]); // undecided, undecided, certain of class 0
 * const targets = device.tensor([1, -100, 0], [3], { dtype: "i32" });
 * assertEquals([...await logprobs(logits, targets).data()], [Math.fround(-Math.LN2), 0, 0]);
 * device.close();
 * ```
 */
export function logprobs(logits: Tensor, targets: Tensor, options: LogprobOptions = {}): Tensor {
  using scope = logits.device.scope("logprobs");
  return scope.keep(logprobStatistics(logits, targets, options).logprobs);
}

/** Computes {@linkcode logprobs} and, in the same pass over the logits, more statistics of each row. */
export function logprobStatistics(
  logits: Tensor,
  targets: Tensor,
  { ignoreIndex: ignore = -100, temperature = 1 }: LogprobOptions = {},
): LogprobStatistics {
  using scope = logits.device.scope("logprobs");
  const V = logits.shape.at(-1) ?? 0, { shape } = targets;
  if (`${shape}` !== `${logits.shape.slice(0, -1)}` || V === 0) {
    throw new ShapeError(
      `Cannot apply logprobs to logits [${logits.shape}] and targets [${shape}]: expected [...,V] and [...]`,
    );
  }
  refuseOthers("logprobs", targets, { V, ignoreIndex: ignore });
  const rows = [logits.size / V], both = [logits.size / V, V], params = { ignore, scale: 1 / temperature };
  const read = { logits: logits.alias(both), targets: targets.alias(rows) };
  const { logprob, lse, entropy, mean, hit } = launch(logprobsForward, read, params);
  const result = { logprobs: logprob.alias(shape), entropy: entropy.alias(shape), mean: mean.alias(shape) };
  record("logprobs", result.logprobs, [logits], [logits, targets, lse], (dout, [into]) => {
    const saved = { logits: logits.alias(both), targets: targets.alias(rows), lse, dlogits: into?.alias(both) };
    const { dlogits } = launch(logprobsBackward, { dlogprob: dout.alias(rows), ...saved }, params);
    return [dlogits.alias(logits.shape)];
  });
  const all = { ...result, hit: hit.alias(shape) };
  for (const tensor of Object.values(all)) scope.keep(tensor);
  return all;
}
