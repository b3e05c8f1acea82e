import { div, equal, mul } from "../../kernels/binary/kernel.ts";
import { max as kernel, maxBackward } from "../../kernels/reduce/kernel.ts";
import { record } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { splitAt } from "./axes.ts";
import { binary, sumTo } from "./broadcast.ts";
import { reducedShape } from "./reduce.ts";

/**
 * The greatest element along an axis, or (the default) of all; NaN if any element is NaN. If several elements are
 * equally great, the gradient goes, as in `torch.max`, to the first of them along an axis, and in equal parts to all of
 * them if there is no axis.
 *
 * @param x f32, any shape
 * @param options.axis negative: counted from the end; default: all axes
 * @param options.keepDim leaves the axis in the shape, with size 1; default: false
 * @returns f32, the shape of x without the axis, or []
 * @throws {ShapeError} when there is no such axis
 * @see https://pytorch.org/docs/stable/generated/torch.max.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { max } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 5, 3, 2, 4, 0], [2, 3]);
 * assertEquals(await max(x).item(), 5);
 * assertEquals([...await max(x, { axis: -1 }).data()], [5, 4]);
 * device.close();
 * ```
 */
export function max(x: Tensor, options: { axis?: number; keepDim?: boolean } = {}): Tensor {
  const { axes: [axis = 0], result } = reducedShape("max", x.shape, options);
  const all = options.axis === undefined, [outer, length, inner] = all ? [1, x.size, 1] : splitAt(x.shape, axis);
  using scope = x.device.scope("max");
  const y = scope.keep(launch(kernel, { x: x.alias([outer, length, inner]) }).y.alias(result));
  return record("max", y, [x], [x, y], (dy, into) => {
    if (all) {
      const flat = x.alias([x.size]),
        [most, gradient] = [y.alias([1]), dy.alias([1])],
        share = binary(equal, flat, most);
      return [binary(mul, share, binary(div, gradient, sumTo(most, share))).alias(x.shape)];
    }
    const [most, gradient] = [y.alias([outer, inner]), dy.alias([outer, inner])], shape = [outer, length, inner];
    return [
      launch(maxBackward, { x: x.alias(shape), y: most, dy: gradient, dx: into[0]?.alias(shape) }).dx.alias(x.shape),
    ];
  });
}
