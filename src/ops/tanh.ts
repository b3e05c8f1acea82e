import { tanhBackward } from "../../kernels/binary/kernel.ts";
import { tanh as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/**
 * y = tanh x = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), element by element, like `torch.tanh`. dx = dy · (1 − y²).
 *
 * @param x f32, any shape
 * @returns f32, the shape of x
 * @see https://pytorch.org/docs/stable/generated/torch.tanh.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { tanh } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * assertEquals([...await tanh(device.tensor([0, 100, -100], [3])).data()], [0, 1, -1]);
 * device.close();
 * ```
 */
export function tanh(x: Tensor): Tensor {
  const y = unary(kernel, x);
  return record("tanh", y, [x], [y], (dy) => [binary(tanhBackward, dy, y)]);
}
