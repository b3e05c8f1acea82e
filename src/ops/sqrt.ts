import { sqrtBackward } from "../../kernels/binary/kernel.ts";
import { sqrt as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/**
 * y = √x, element by element, like `torch.sqrt`; NaN for negative numbers. dx = dy / 2y.
 *
 * @param x f32, any shape
 * @returns f32, the shape of x
 * @see https://pytorch.org/docs/stable/generated/torch.sqrt.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { sqrt } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * assertEquals([...await sqrt(device.tensor([9, 0.25, -1], [3])).data()], [3, 0.5, NaN]);
 * device.close();
 * ```
 */
export function sqrt(x: Tensor): Tensor {
  const y = unary(kernel, x);
  return record("sqrt", y, [x], [y], (dy) => [binary(sqrtBackward, dy, y)]);
}
