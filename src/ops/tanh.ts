import { tanhBackward } from "../../kernels/binary/kernel.ts";
import { tanh as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/** y = tanh(x); dx = dy · (1 − y²). */
export function tanh(x: Tensor): Tensor {
  const y = unary(kernel, x);
  return record("tanh", y, [x], [y], (dy) => [binary(tanhBackward, dy, y)]);
}
