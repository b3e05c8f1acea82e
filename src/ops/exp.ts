import { mul } from "../../kernels/binary/kernel.ts";
import { exp as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/**
 * y = eˣ, element by element, like `torch.exp`. dx = dy · y.
 *
 * @param x f32, any shape
 * @returns f32, the shape of x
 * @see https://pytorch.org/docs/stable/generated/torch.exp.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { exp } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * assertEquals([...await exp(device.tensor([0, -Infinity], [2])).data()], [1, 0]);
 * device.close();
 * ```
 */
export function exp(x: Tensor): Tensor {
  const y = unary(kernel, x);
  return record("exp", y, [x], [y], (dy) => [binary(mul, dy, y)]);
}
