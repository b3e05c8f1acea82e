import { logprobsBackward, logprobsForward } from "../../kernels/logprobs/kernel.ts";
import { record } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { ShapeError } from "../errors.ts";
import { refuseOthers } from "./cross_entropy.ts";

/** How {@linkcode logprobs} looks at logits. */
export interface LogprobOptions {
  /** Rows with this target have 0, and no gradient. Default: −100. */ readonly ignoreIndex?: number;
  /** What logits are divided by. Default: 1. */ readonly temperature?: number;
}

/** What a pass over logits tells of each row, f32 (…); 0 in rows that are ignored. */
export interface LogprobStatistics {
  /** log p(target), with its gradient. */ readonly logprobs: Tensor;
  /** −Σ p log p, in nats, without a gradient, as what follows. */ readonly entropy: Tensor;
  /** The mean of the logits. */ readonly mean: Tensor;
  /** 1 where no logit is greater than the target's. */ readonly hit: Tensor;
}

/**
 * The log-probability that softmax(logits / temperature) gives to a target in each row, as `torch.log_softmax` and `gather`: what
 * −{@linkcode crossEntropy} is the mean of. dlogits = ([the target] − softmax(logits / temperature)) · dy / temperature.
 *
 * @param logits f32 (…, V)
 * @param targets i32 (…): a class from 0 to V − 1 for each row, or `ignoreIndex`
 * @returns f32 (…), in nats
 * @throws {ShapeError} when the shapes disagree, or a target that the host wrote is no class. A target that is made on the device
 *   cannot be looked at: one that is no class counts as the last.
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { logprobs } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const logits = device.tensor([0, 0, 0, 0, 1000, 0], [3, 2]); // even, even, certain of class 0
 * const targets = device.tensor([1, -100, 0], [3], { dtype: "i32" });
 * assertEquals([...await logprobs(logits, targets).data()], [Math.fround(-Math.LN2), 0, 0]);
 * device.close();
 * ```
 */
export function logprobs(logits: Tensor, targets: Tensor, options: LogprobOptions = {}): Tensor {
  using scope = logits.device.scope("logprobs");
  return scope.keep(logprobStatistics(logits, targets, options).logprobs);
}

/** {@linkcode logprobs}, and what the same pass tells of each row besides. */
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
