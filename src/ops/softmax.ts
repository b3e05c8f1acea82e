import { softmaxBackward, softmaxForward } from "../../kernels/softmax/kernel.ts";
import { record } from "../autograd.ts";
import { launch } from "../launch.ts";
import type { Tensor } from "../tensor.ts";
import { axisOf, splitAt } from "./axes.ts";

/**
 * exp(x) / Σ exp(x) along an axis, as `torch.softmax`: probabilities that sum to 1.
 *
 * The greatest element is subtracted first, so large ones do not overflow; −∞ gives 0.
 *
 * @param x any shape
 * @param options.axis counted from the end where negative; default: the last
 * @returns the shape of x
 * @throws {ShapeError} when x has no such axis
 */
export function softmax(x: Tensor, { axis = -1 }: { axis?: number } = {}): Tensor {
  using scope = x.device.scope();
  const three = splitAt(x.shape, axisOf("softmax", x.shape, axis));
  const y = launch(softmaxForward, { x: x.view(three) }).y.view(x.shape);
  record("softmax", y, [x], [y], (dout, [into]) => {
    const { dx } = launch(softmaxBackward, { dy: dout.view(three), y: y.view(three), dx: into?.view(three) });
    return [dx.view(x.shape)];
  });
  return scope.keep(y);
}
