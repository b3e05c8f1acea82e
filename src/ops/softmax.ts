import { softmaxBackward, softmaxForward } from "../../kernels/softmax/kernel.ts";
import { record } from "../engine/autograd.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { axisOf, splitAt } from "./axes.ts";

/**
 * y = exp(x) / Σ exp(x) along an axis, like `torch.softmax`: probabilities that sum to 1. dx = y · (dy − Σ dy · y).
 *
 * The greatest element is subtracted first, so large elements do not overflow. An element of −∞ gets probability 0.
 *
 * @param x f32, any shape
 * @param options.axis negative: counted from the end; default: the last
 * @returns f32, the shape of x
 * @throws {ShapeError} when x has no such axis
 * @see https://pytorch.org/docs/stable/generated/torch.softmax.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { softmax } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([7, 7, -Infinity, 1000, 0, 0], [2, 3]);
 * assertEquals([...await softmax(x).data()], [0.5, 0.5, 0, 1, 0, 0]);
 * device.close();
 * ```
 */
export function softmax(x: Tensor, { axis = -1 }: { axis?: number } = {}): Tensor {
  using scope = x.device.scope("softmax");
  const three = splitAt(x.shape, axisOf("softmax", x.shape, axis));
  const y = launch(softmaxForward, { x: x.alias(three) }).y.alias(x.shape);
  record("softmax", y, [x], [y], (dout, [into]) => {
    const { dx } = launch(softmaxBackward, { dy: dout.alias(three), y: y.alias(three), dx: into?.alias(three) });
    return [dx.alias(x.shape)];
  });
  return scope.keep(y);
}
