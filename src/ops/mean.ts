import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { expand, sumTo } from "./broadcast.ts";
import { reduceSum, type ReductionOptions } from "./reduce.ts";

/**
 * The mean over one axis, over several, or (the default) over all, like `torch.mean`. dx = dy / n, repeated along those
 * axes, where n is the number of elements in each mean.
 *
 * @param x f32, any shape
 * @param options.axis one axis or several; negative ones count from the end; default: all
 * @param options.keepDim leaves each such axis in the shape, with size 1; default: false
 * @returns f32, the shape of x without the axes
 * @throws {ShapeError} when there is no such axis, or one is named twice
 * @see https://pytorch.org/docs/stable/generated/torch.mean.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { mean } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3, 4], [2, 2]);
 * assertEquals(await mean(x).item(), 2.5);
 * assertEquals([...await mean(x, { axis: 1 }).data()], [1.5, 3.5]);
 * device.close();
 * ```
 */
export function mean(x: Tensor, options: ReductionOptions = {}): Tensor {
  const { y, kept } = reduceSum("mean", x, options, true), count = x.size / y.size;
  return record("mean", y, [x], [], (dy) => [expand(sumTo(dy, dy, undefined, count).alias(kept), x.shape)]);
}
