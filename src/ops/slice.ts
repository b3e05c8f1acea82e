import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf, stridesOf } from "./axes.ts";
import { placeAt } from "./concat.ts";
import { copyStrided } from "./strided.ts";
import { zeros } from "./zeros.ts";

/**
 * Copies the part of x from `start` up to, but not including, `end` along an axis: Python's `x[:, start:end]`.
 *
 * @param x f32 or i32, any shape
 * @param options.axis negative: counted from the end
 * @param options.start first index; negative: counted from the end; default: 0
 * @param options.end index after the last one; negative: counted from the end; default: the size of the axis, which it
 *   may exceed
 * @returns the dtype of x, and its shape except along the axis
 * @throws {ShapeError} when there is no such axis, an index is not a whole number, or the part is empty
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { slice } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
 * assertEquals([...await slice(x, { axis: 1, start: -2 }).data()], [2, 3, 5, 6]);
 * device.close();
 * ```
 */
export function slice(x: Tensor, options: { axis: number; start?: number; end?: number }): Tensor {
  const axis = axisOf("slice", x.shape, options.axis), size = x.shape[axis];
  const { start: from = 0, end: to = size } = options,
    refuse = (why: string) => {
      throw new ShapeError(`Cannot apply slice to [${x.shape}]: ${why}`);
    };
  if (!Number.isInteger(from) || !Number.isInteger(to)) {
    refuse(`start ${from} and end ${to} are not both whole numbers`);
  }
  const place = (at: number) => Math.min(Math.max(at < 0 ? at + size : at, 0), size);
  const start = place(from), length = place(to) - start;
  if (length < 1) refuse(`there are no elements from ${from} to ${to} along axis ${axis}`);
  const strides = stridesOf(x.shape), shape = x.shape.with(axis, length);
  return record("slice", copyStrided("slice", x, shape, strides, start * strides[axis]), [x], [], (dy) => {
    const dx = zeros(x.device, x.shape);
    placeAt(dx, dy, axis, start);
    return [dx];
  });
}
