import { gather as kernel, gatherBackward } from "../../kernels/gather/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf, splitAt } from "./axes.ts";
import { slice } from "./slice.ts";
import { zeros } from "./zeros.ts";

/**
 * Picks elements along an axis, like `torch.gather`: for axis 1 of three, y[i, j, k] = x[i, index[i, j, k], k].
 * Backward adds dy[i, j, k] to dx[i, index[i, j, k], k].
 *
 * @param x f32, any shape
 * @param index i32, in the shape of the result. Along all axes but `axis` it is at most as long as x. Indices written
 *   by the host are checked; indices computed on the device are clamped to the axis
 * @param options.axis negative: counted from the end
 * @returns f32, the shape of index
 * @throws {ShapeError} when the shapes do not fit, or an index is outside the axis
 * @see https://pytorch.org/docs/stable/generated/torch.gather.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { gather } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, 3, 4, 5, 6], [2, 3]), index = device.tensor([2, 0], [2, 1], { dtype: "i32" });
 * assertEquals([...await gather(x, index, { axis: 1 }).data()], [3, 4]);
 * device.close();
 * ```
 */
export function gather(x: Tensor, index: Tensor, options: { axis: number }): Tensor {
  using scope = x.device.scope("gather");
  const axis = axisOf("gather", x.shape, options.axis), { bounds } = index.storage.block, { shape } = index;
  const refuse = (why: string) => new ShapeError(`Cannot apply gather to [${x.shape}] and [${shape}]: ${why}`);
  if (shape.length !== x.shape.length) throw refuse("the index has another number of axes");
  const wrong = bounds && [bounds.least, bounds.greatest].find((place) => place < 0 || place >= x.shape[axis]);
  if (wrong !== undefined) throw refuse(`index ${wrong} is outside axis ${axis}, which has ${x.shape[axis]} places`);

  const other = shape.findIndex((size, i) => i !== axis && size !== x.shape[i]);
  if (other >= 0) {
    if (shape[other] > x.shape[other]) throw refuse(`the index is longer along axis ${other}`);
    return scope.keep(gather(slice(x, { axis: other, end: shape[other] }), index, options));
  }
  const places = splitAt(shape, axis), source = splitAt(x.shape, axis);
  const y = scope.keep(launch(kernel, { x: x.alias(source), index: index.alias(places) }).y.alias(shape));
  return record("gather", y, [x, index], [index], (dy, into) => {
    const dx = into[0] ?? zeros(x.device, x.shape);
    launch(gatherBackward, { dy: dy.alias(places), index: index.alias(places), dx: dx.alias(source) });
    return [dx];
  });
}
