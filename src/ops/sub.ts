import { sub as kernel } from "../../kernels/binary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * a − b, broadcast.
 *
 * @throws {ShapeError} when two axes differ and neither is 1
 */
export function sub(a: Tensor, b: Tensor): Tensor {
  return record("sub", binary(kernel, a, b), [a, b], [], (dy, into) => [
    a.requiresGrad ? sumTo(a, dy, into[0]) : undefined,
    b.requiresGrad ? sumTo(b, dy, into[1], -1) : undefined,
  ]);
}
