import { neg as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { unary } from "./unary.ts";

/**
 * −x, element by element, like `torch.neg`. dx = −dy.
 *
 * @param x f32, any shape
 * @returns f32, the shape of x
 * @see https://pytorch.org/docs/stable/generated/torch.neg.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { neg } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * assertEquals([...await neg(device.tensor([1, -2], [2])).data()], [-1, 2]);
 * device.close();
 * ```
 */
export function neg(x: Tensor): Tensor {
  return record("neg", unary(kernel, x), [x], [], (dy) => [unary(kernel, dy)]);
}
