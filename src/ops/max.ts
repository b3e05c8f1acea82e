import { div, equal, mul } from "../../kernels/binary/kernel.ts";
import { max as kernel, maxBackward } from "../../kernels/reduce/kernel.ts";
import { record } from "../autograd.ts";
import { launch } from "../launch.ts";
import type { Tensor } from "../tensor.ts";
import { splitAt } from "./axes.ts";
import { binary, sumTo } from "./broadcast.ts";
import { reducedShape } from "./reduce.ts";

/**
 * The greatest element along an axis, or (the default) of all; NaN where there is one. Where several are the greatest,
 * the gradient goes to the first along an axis, and in equal parts to all over all elements, as in PyTorch.
 *
 * @param options.axis counted from the end where negative
 * @param options.keepDim leaves the axis in the shape, with size 1 (default: false)
 * @throws {ShapeError} when there is no such axis
 */
export function max(x: Tensor, options: { axis?: number; keepDim?: boolean } = {}): Tensor {
  const { axes: [axis = 0], result } = reducedShape("max", x.shape, options);
  const all = options.axis === undefined, [outer, length, inner] = all ? [1, x.size, 1] : splitAt(x.shape, axis);
  using scope = x.device.scope();
  const y = scope.keep(launch(kernel, { x: x.view([outer, length, inner]) }).y.view(result));
  return record("max", y, [x], [x, y], (dy, into) => {
    if (all) {
      const flat = x.view([x.size]), [most, gradient] = [y.view([1]), dy.view([1])], share = binary(equal, flat, most);
      return [binary(mul, share, binary(div, gradient, sumTo(most, share))).view(x.shape)];
    }
    const [most, gradient] = [y.view([outer, inner]), dy.view([outer, inner])], shape = [outer, length, inner];
    return [
      launch(maxBackward, { x: x.view(shape), y: most, dy: gradient, dx: into[0]?.view(shape) }).dx.view(x.shape),
    ];
  });
}
