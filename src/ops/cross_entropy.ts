import { crossEntropyBackward, crossEntropyForward } from "../../kernels/cross_entropy/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * The mean over rows of log Σ exp(logits) − logits[target], as `torch.nn.functional.cross_entropy`: how many nats the
 * targets surprise a model that predicts softmax(logits). dlogits = (softmax(logits) − [the target]) · dy / n for
 * the n rows that count.
 *
 * @param logits f32 (…, V)
 * @param targets i32 (…): a class from 0 to V − 1 for each row
 * @param options.ignoreIndex rows with this target do not count; where none counts, the loss is NaN. Default: −100
 * @returns f32 []: one number, in nats
 * @throws {ShapeError} when the shapes disagree, or a target that the host wrote is no class. A target that is made on
 *   the device cannot be looked at: one that is no class counts as the last.
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { crossEntropy } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const logits = device.tensor([0, 0, 0, 0, 1000, 0], [3, 2]); // even, even, certain of class 0
 * const targets = device.tensor([1, -100, 0], [3], { dtype: "i32" });
 * assertEquals(await crossEntropy(logits, targets).item(), Math.fround(Math.LN2 / 2)); // (ln 2 + 0) / 2
 * device.close();
 * ```
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  { ignoreIndex = -100 }: { ignoreIndex?: number } = {},
): Tensor {
  using scope = logits.device.scope("crossEntropy");
  const V = logits.shape.at(-1) ?? 0;
  if (`${targets.shape}` !== `${logits.shape.slice(0, -1)}` || V === 0) {
    throw new ShapeError(
      `Cannot apply crossEntropy to logits [${logits.shape}] and targets [${targets.shape}]: expected [...,V] and [...]`,
    );
  }
  refuseOthers("crossEntropy", targets, { V, ignoreIndex });
  const rows = [logits.size / V], both = [logits.size / V, V], ignore = ignoreIndex;
  const { loss, count, lse } = launch(
    crossEntropyForward,
    { logits: logits.alias(both), targets: targets.alias(rows) },
    { ignore },
  );
  record("crossEntropy", loss, [logits], [logits, targets, lse, count], (dloss, [into]) => {
    const saved = { logits: logits.alias(both), targets: targets.alias(rows), lse, count };
    const { dlogits } = launch(crossEntropyBackward, { dloss, ...saved, dlogits: into?.alias(both) }, { ignore });
    return [dlogits.alias(logits.shape)];
  });
  return scope.keep(loss);
}

/** @internal Of targets that the host wrote the extremes are known, and the next in case that the extreme is `ignoreIndex`. */
export function refuseOthers(
  op: string,
  { shape, storage: { block: { bounds } } }: Tensor,
  { V, ignoreIndex }: { readonly V: number; readonly ignoreIndex: number },
): void {
  if (!bounds) return;
  for (const target of [bounds.least, bounds.greatest, ...bounds.next]) {
    if (target === ignoreIndex || (target >= 0 && target < V) || !Number.isFinite(target)) continue;
    throw new ShapeError(
      `Cannot apply ${op} to targets [${shape}]: ${target} is not a class; they are 0 to ${
        V - 1
      }, for a row has ${V} logits`,
    );
  }
}
