import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { expand } from "./broadcast.ts";
import { reduceSum, type ReductionOptions } from "./reduce.ts";

/**
 * The sum over one axis, over several, or (the default) over all.
 *
 * @param options.axis counted from the end where negative
 * @param options.keepDim leaves each such axis in the shape, with size 1 (default: false)
 * @throws {ShapeError} when there is no such axis, or one is named twice
 */
export function sum(x: Tensor, options: ReductionOptions = {}): Tensor {
  const { y, kept } = reduceSum("sum", x, options, false);
  return record("sum", y, [x], [], (dy) => [expand(dy.view(kept), x.shape)]);
}
