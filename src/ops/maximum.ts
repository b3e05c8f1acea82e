import { maximum as kernel, maximumShare, mul } from "../../kernels/binary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * The greater of a and b, element by element, with broadcasting, like `torch.maximum`; NaN if either is NaN. The
 * gradient goes to the greater operand, or half of it to each if they are equal.
 *
 * @param a f32, any shape
 * @param b f32, any shape that broadcasts with a's
 * @returns f32, the common shape
 * @throws {ShapeError} when two axes differ and neither is 1
 * @see https://pytorch.org/docs/stable/generated/torch.maximum.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { maximum } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([-1, 0, 2], [3]), zero = device.tensor([0], []);
 * assertEquals([...await maximum(x, zero).data()], [0, 0, 2]); // ReLU
 * device.close();
 * ```
 */
export function maximum(a: Tensor, b: Tensor): Tensor {
  return record("maximum", binary(kernel, a, b), [a, b], [a, b], (dy, into) => [
    a.requiresGrad ? sumTo(a, binary(mul, dy, binary(maximumShare, a, b)), into[0]) : undefined,
    b.requiresGrad ? sumTo(b, binary(mul, dy, binary(maximumShare, b, a)), into[1]) : undefined,
  ]);
}
