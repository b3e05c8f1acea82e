import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { expand } from "./broadcast.ts";
import { reduceSum, type ReductionOptions } from "./reduce.ts";

/**
 * The sum over one axis, over several, or (the default) over all, like `torch.sum`. dx = dy, repeated along those axes.
 *
 * @param x f32, any shape
 * @param options.axis one axis or several; negative ones count from the end; default: all
 * @param options.keepDim leaves each such axis in the shape, with size 1; default: false
 * @returns f32, the shape of x without the axes
 * @throws {ShapeError} when there is no such axis, or one is named twice
 * @see https://pytorch.org/docs/stable/generated/torch.sum.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { sum } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3, 4], [2, 2]);
 * assertEquals(await sum(x).item(), 10);
 * assertEquals([...await sum(x, { axis: 0 }).data()], [4, 6]);
 * device.close();
 * ```
 */
export function sum(x: Tensor, options: ReductionOptions = {}): Tensor {
  const { y, kept } = reduceSum("sum", x, options, false);
  return record("sum", y, [x], [], (dy) => [expand(dy.alias(kept), x.shape)]);
}
