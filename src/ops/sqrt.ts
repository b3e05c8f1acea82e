import { sqrtBackward } from "../../kernels/binary/kernel.ts";
import { sqrt as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/** y = √x, NaN of what is negative; dx = dy / 2y. */
export function sqrt(x: Tensor): Tensor {
  const y = unary(kernel, x);
  return record("sqrt", y, [x], [y], (dy) => [binary(sqrtBackward, dy, y)]);
}
