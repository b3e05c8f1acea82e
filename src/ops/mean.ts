import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { expand, sumTo } from "./broadcast.ts";
import { reduceSum, type ReductionOptions } from "./reduce.ts";

/**
 * The mean over one axis, over several, or (the default) over all.
 *
 * @param options.axis counted from the end where negative
 * @param options.keepDim leaves each such axis in the shape, with size 1 (default: false)
 * @throws {ShapeError} when there is no such axis, or one is named twice
 */
export function mean(x: Tensor, options: ReductionOptions = {}): Tensor {
  const { y, kept } = reduceSum("mean", x, options, true), count = x.size / y.size;
  return record("mean", y, [x], [], (dy) => [expand(sumTo(dy, dy, undefined, count).view(kept), x.shape)]);
}
