import { sub as kernel } from "../../kernels/binary/kernel.ts";
import { record } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * a − b, element by element, with broadcasting, like `torch.sub`. da = dy, db = −dy.
 *
 * @param a f32, any shape
 * @param b f32, any shape that broadcasts with a's
 * @returns f32, the common shape
 * @throws {ShapeError} when two axes differ and neither is 1
 * @see https://pytorch.org/docs/stable/generated/torch.sub.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { sub } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const a = device.tensor([1, 2, 3, 4], [2, 2]), b = device.tensor([1, 3], [2, 1]);
 * assertEquals([...await sub(a, b).data()], [0, 1, 0, 1]);
 * device.close();
 * ```
 */
export function sub(a: Tensor, b: Tensor): Tensor {
  return record("sub", binary(kernel, a, b), [a, b], [], (dy, into) => [
    a.requiresGrad ? sumTo(a, dy, into[0]) : undefined,
    b.requiresGrad ? sumTo(b, dy, into[1], -1) : undefined,
  ]);
}
