import { div as kernel, mul } from "../../kernels/binary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * a / b, element by element, broadcast. With y = a / b: da = dy / b, db = −dy · y / b.
 *
 * @throws {ShapeError} when two axes differ and neither is 1
 */
export function div(a: Tensor, b: Tensor): Tensor {
  const y = binary(kernel, a, b);
  return record("div", y, [a, b], [b, y], (dy, into) => [
    a.requiresGrad ? sumTo(a, binary(kernel, dy, b), into[0]) : undefined,
    b.requiresGrad ? sumTo(b, binary(kernel, binary(mul, dy, y), b), into[1], -1) : undefined,
  ]);
}
