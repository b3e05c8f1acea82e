import { mul } from "../../kernels/binary/kernel.ts";
import { exp as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/** y = eˣ; dx = dy · y. */
export function exp(x: Tensor): Tensor {
  const y = unary(kernel, x);
  return record("exp", y, [x], [y], (dy) => [binary(mul, dy, y)]);
}
