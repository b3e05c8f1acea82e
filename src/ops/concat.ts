import { place } from "../../kernels/copy/kernel.ts";
import { record } from "../engine/autograd.ts";
import { DeviceError, ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf, splitAt, stridesOf } from "./axes.ts";
import { copyStrided } from "./strided.ts";

/**
 * Joins tensors along an axis, like `torch.concat`.
 *
 * @param tensors f32 or i32, all of the same dtype and, except along the axis, of the same shape
 * @param options.axis negative: counted from the end
 * @returns the dtype and shape of the tensors; along the axis, the sum of their sizes
 * @throws {ShapeError} when there are no tensors, or the sizes of another axis differ
 * @throws {DeviceError} when the dtypes or the devices differ
 * @see https://pytorch.org/docs/stable/generated/torch.concat.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { concat } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const a = device.tensor([1, 2], [2, 1]), b = device.tensor([3, 4, 5, 6], [2, 2]);
 * assertEquals([...await concat([a, b], { axis: 1 }).data()], [1, 3, 4, 2, 5, 6]);
 * device.close();
 * ```
 */
export function concat(tensors: readonly Tensor[], options: { axis: number }): Tensor {
  const [first] = tensors;
  if (!first) throw new ShapeError("Cannot apply concat to no tensors");
  const axis = axisOf("concat", first.shape, options.axis), rest = `${first.shape.with(axis, 1)}`;
  const given = tensors.map(({ shape }) => `[${shape}]`).join(" and ");
  if (tensors.some(({ shape }) => axis >= shape.length || `${shape.with(axis, 1)}` !== rest)) {
    throw new ShapeError(`Cannot apply concat to ${given}: along the axes other than ${axis} the sizes differ`);
  }
  if (tensors.some(({ dtype, device }) => dtype !== first.dtype || device !== first.device)) {
    throw new DeviceError(`Cannot apply concat to ${given}: dtypes or devices differ`);
  }
  const length = tensors.reduce((sum, { shape }) => sum + shape[axis], 0);
  using scope = first.device.scope("concat");
  const y = first.device.empty(first.shape.with(axis, length), { dtype: first.dtype });
  const starts: number[] = [];
  let end = 0;
  for (const x of tensors) {
    placeAt(y, x, axis, end);
    starts.push(end);
    end += x.shape[axis];
  }
  record("concat", y, tensors, [], (dy) => {
    const strides = stridesOf(y.shape);
    return tensors.map((x, i) =>
      x.requiresGrad ? copyStrided("concat", dy, x.shape, strides, starts[i] * strides[axis]) : undefined
    );
  });
  return scope.keep(y);
}

/** Copies x into the part of y that begins at index `start` of the axis. */
export function placeAt(y: Tensor, x: Tensor, axis: number, start: number): void {
  using _ = y.device.scope();
  const operands = { x: x.alias(splitAt(x.shape, axis)), y: y.alias(splitAt(y.shape, axis)) };
  if (y.dtype === "i32") launch(place.i32, operands, { start });
  else launch(place.f32, operands, { start });
}
