import { neg as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { unary } from "./unary.ts";

/** −x. */
export function neg(x: Tensor): Tensor {
  return record("neg", unary(kernel, x), [x], [], (dy) => [unary(kernel, dy)]);
}
