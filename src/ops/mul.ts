import { mul as kernel } from "../../kernels/binary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary, sumTo } from "./broadcast.ts";

/**
 * a · b, element by element, broadcast.
 *
 * @throws {ShapeError} when two axes differ and neither is 1
 */
export function mul(a: Tensor, b: Tensor): Tensor {
  return record("mul", binary(kernel, a, b), [a, b], [a, b], (dy, into) => [
    a.requiresGrad ? sumTo(a, binary(kernel, dy, b), into[0]) : undefined,
    b.requiresGrad ? sumTo(b, binary(kernel, dy, a), into[1]) : undefined,
  ]);
}
