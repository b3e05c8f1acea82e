import { div } from "../../kernels/binary/kernel.ts";
import { log as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/**
 * The natural logarithm, element by element, like `torch.log`: −∞ for 0, NaN for negative numbers. dx = dy / x.
 *
 * @param x f32, any shape
 * @returns f32, the shape of x
 * @see https://pytorch.org/docs/stable/generated/torch.log.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { log } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * assertEquals([...await log(device.tensor([1, 0, -1], [3])).data()], [0, -Infinity, NaN]);
 * device.close();
 * ```
 */
export function log(x: Tensor): Tensor {
  return record("log", unary(kernel, x), [x], [x], (dy) => [binary(div, dy, x)]);
}
