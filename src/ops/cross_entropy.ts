import { crossEntropyBackward, crossEntropyForward } from "../../kernels/cross_entropy/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * Cross-entropy: the mean over rows of −log softmax(logits)[target] = log Σ exp(logits) − logits[target], like
 * `torch.nn.functional.cross_entropy`. dlogits = (softmax(logits) − onehot(target)) · dy / n, where n is the number of
 * rows that are not ignored.
 *
 * @param logits f32 (…, V)
 * @param targets i32 (…): a class from 0 to V − 1 for each row
 * @param options.ignoreIndex rows with this target are ignored; if all are, the loss is NaN. Default: −100
 * @returns f32 []: one number, in nats
 * @throws {ShapeError} when the shapes disagree, or a target written by the host is not a class. Targets computed on
 *   the device are not checked; one that is not a class counts as class V − 1
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { crossEntropy } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const logits = device.tensor([0, 0, 0, 0, 1000, 0], [3, 2]); // undecided, undecided, certain of class 0
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

/**
 * Throws if a target written by the host is not a class. A storage knows the smallest and the largest value that the
 * host wrote, and the second smallest and second largest, for the case that one of the extremes is `ignoreIndex`.
 *
 * @internal
 */
export function refuseOthers(
  op: string,
  { shape, storage: { block: { bounds } } }: Tensor,
  { V, ignoreIndex }: { readonly V: number; readonly ignoreIndex: number },
): void {
  if (!bounds) return;
  for (const target of [bounds.least, bounds.greatest, ...bounds.next]) {
    if (target === ignoreIndex || (target >= 0 && target < V) || !Number.isFinite(target)) continue;
    throw new ShapeError(
      `Cannot apply ${op} to targets [${shape}]: ${target} is not a class; rows of ${V} logits have classes 0 to ${
        V - 1
      }`,
    );
  }
}
