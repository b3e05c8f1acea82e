import { logSoftmaxBackward, logSoftmaxForward } from "../../kernels/softmax/kernel.ts";
import { record } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf, splitAt } from "./axes.ts";

/**
 * y = x − log Σ exp(x) along an axis, like `torch.log_softmax`: the logarithm of {@linkcode softmax}, but accurate even
 * where softmax rounds to 0. dx = dy − exp(y) · Σ dy.
 *
 * @param x f32, any shape
 * @param options.axis negative: counted from the end; default: the last
 * @returns f32, the shape of x
 * @throws {ShapeError} when x has no such axis
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { logSoftmax } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * assertEquals([...await logSoftmax(device.tensor([0, -1000], [2])).data()], [0, -1000]);
 * device.close();
 * ```
 */
export function logSoftmax(x: Tensor, { axis = -1 }: { axis?: number } = {}): Tensor {
  using scope = x.device.scope("logSoftmax");
  const three = splitAt(x.shape, axisOf("logSoftmax", x.shape, axis));
  const y = launch(logSoftmaxForward, { x: x.alias(three) }).y.alias(x.shape);
  record("logSoftmax", y, [x], [y], (dout, [into]) => {
    const { dx } = launch(logSoftmaxBackward, { dy: dout.alias(three), y: y.alias(three), dx: into?.alias(three) });
    return [dx.alias(x.shape)];
  });
  return scope.keep(y);
}
