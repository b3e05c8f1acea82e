import { mul as kernel } from "../../kernels/binary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * a · b, element by element, with broadcasting, like `torch.mul`. da = dy · b, db = dy · a.
 *
 * @param a f32, any shape
 * @param b f32, any shape that broadcasts with a's
 * @returns f32, the common shape
 * @throws {ShapeError} when two axes differ and neither is 1
 * @see https://pytorch.org/docs/stable/generated/torch.mul.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { mul } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const a = device.tensor([1, 2, 3, 4], [2, 2]), b = device.tensor([10, 100], [2]);
 * assertEquals([...await mul(a, b).data()], [10, 200, 30, 400]);
 * device.close();
 * ```
 */
export function mul(a: Tensor, b: Tensor): Tensor {
  return record("mul", binary(kernel, a, b), [a, b], [a, b], (dy, into) => [
    a.requiresGrad ? sumTo(a, binary(kernel, dy, b), into[0]) : undefined,
    b.requiresGrad ? sumTo(b, binary(kernel, dy, a), into[1]) : undefined,
  ]);
}
