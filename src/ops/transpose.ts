import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { axisOf } from "./axes.ts";
import { permuted } from "./permute.ts";

/**
 * A copy with two axes exchanged.
 *
 * @param axes counted from the end where negative
 * @throws {ShapeError} when there is no such axis
 */
export function transpose(x: Tensor, axes: readonly [number, number]): Tensor {
  const [first, second] = axes.map((axis) => axisOf("transpose", x.shape, axis));
  const order = x.shape.map((_, axis) => axis === first ? second : axis === second ? first : axis);
  return record("transpose", permuted("transpose", x, order), [x], [], (dy) => [permuted("transpose", dy, order)]);
}
