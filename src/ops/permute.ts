import { record } from "../autograd.ts";
import { ShapeError } from "../errors.ts";
import type { Tensor } from "../tensor.ts";
import { axisOf, stridesOf } from "./axes.ts";
import { copyStrided } from "./strided.ts";

/**
 * A copy with the axes in another order: axis i of the result is axis `axes[i]` of x.
 *
 * @throws {ShapeError} when the axes are not x's, each once
 */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  return record("permute", permuted("permute", x, axes), [x], [], (dy) => {
    const inverse = axes.map((_, i) => axes.findIndex((axis) => axisOf("permute", x.shape, axis) === i));
    return [permuted("permute", dy, inverse)];
  });
}

/** Outside the tape. */
export function permuted(op: string, x: Tensor, axes: readonly number[]): Tensor {
  const order = axes.map((axis) => axisOf(op, x.shape, axis)), strides = stridesOf(x.shape);
  if (order.length !== x.shape.length || new Set(order).size < order.length) {
    throw new ShapeError(`Cannot apply ${op} to [${x.shape}]: axes [${axes}] are not each of its axes once`);
  }
  return copyStrided(op, x, order.map((axis) => x.shape[axis]), order.map((axis) => strides[axis]));
}
