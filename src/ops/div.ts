import { div as kernel, mul } from "../../kernels/binary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * y = a / b, element by element, with broadcasting, like `torch.div`. da = dy / b, db = −dy · y / b.
 *
 * @param a f32, any shape
 * @param b f32, any shape that broadcasts with a's
 * @returns f32, the common shape
 * @throws {ShapeError} when two axes differ and neither is 1
 * @see https://pytorch.org/docs/stable/generated/torch.div.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { div } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const a = device.tensor([1, 2, 3, 4], [2, 2]), two = device.tensor([2], []);
 * assertEquals([...await div(a, two).data()], [0.5, 1, 1.5, 2]);
 * device.close();
 * ```
 */
export function div(a: Tensor, b: Tensor): Tensor {
  const y = binary(kernel, a, b);
  return record("div", y, [a, b], [b, y], (dy, into) => [
    a.requiresGrad ? sumTo(a, binary(kernel, dy, b), into[0]) : undefined,
    b.requiresGrad ? sumTo(b, binary(kernel, binary(mul, dy, y), b), into[1], -1) : undefined,
  ]);
}
