import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf, stridesOf } from "./axes.ts";
import { copyStrided } from "./strided.ts";

/**
 * Copies x with its axes in another order: axis i of the result is axis `axes[i]` of x. Like `torch.permute`, except
 * that PyTorch returns a view.
 *
 * @param x f32 or i32, any shape
 * @param axes all axes of x, each once; negative: counted from the end
 * @returns the dtype of x, with its sizes in the new order
 * @throws {ShapeError} when `axes` does not name each axis of x exactly once
 * @see https://pytorch.org/docs/stable/generated/torch.permute.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { permute } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3, 4, 5, 6], [1, 2, 3]), y = permute(x, [2, 0, 1]);
 * assertEquals(y.shape, [3, 1, 2]);
 * assertEquals([...await y.data()], [1, 4, 2, 5, 3, 6]);
 * device.close();
 * ```
 */
export function permute(x: Tensor, axes: readonly number[]): Tensor {
  return record("permute", permuted("permute", x, axes), [x], [], (dy) => {
    const inverse = axes.map((_, i) => axes.findIndex((axis) => axisOf("permute", x.shape, axis) === i));
    return [permuted("permute", dy, inverse)];
  });
}

/** Permutes axes without recording. */
export function permuted(op: string, x: Tensor, axes: readonly number[]): Tensor {
  const order = axes.map((axis) => axisOf(op, x.shape, axis)), strides = stridesOf(x.shape);
  if (order.length !== x.shape.length || new Set(order).size < order.length) {
    throw new ShapeError(
      `Cannot apply ${op} to [${x.shape}]: axes [${axes}] do not name each of its axes exactly once`,
    );
  }
  return copyStrided(op, x, order.map((axis) => x.shape[axis]), order.map((axis) => strides[axis]));
}
