import { maximum as kernel, maximumShare, mul } from "../../kernels/binary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * The greater of a and b, element by element, broadcast; NaN where either is. The gradient goes to the greater one, and
 * half of it to each where both are equal.
 *
 * @throws {ShapeError} when two axes differ and neither is 1
 */
export function maximum(a: Tensor, b: Tensor): Tensor {
  return record("maximum", binary(kernel, a, b), [a, b], [a, b], (dy, into) => [
    a.requiresGrad ? sumTo(a, binary(mul, dy, binary(maximumShare, a, b)), into[0]) : undefined,
    b.requiresGrad ? sumTo(b, binary(mul, dy, binary(maximumShare, b, a)), into[1]) : undefined,
  ]);
}
