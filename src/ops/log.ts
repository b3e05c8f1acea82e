import { div } from "../../kernels/binary/kernel.ts";
import { log as kernel } from "../../kernels/unary/kernel.ts";
import { record } from "../autograd.ts";
import type { Tensor } from "../tensor.ts";
import { binary } from "./broadcast.ts";
import { unary } from "./unary.ts";

/** The natural logarithm: −∞ of 0, NaN of what is negative; dx = dy / x. */
export function log(x: Tensor): Tensor {
  return record("log", unary(kernel, x), [x], [x], (dy) => [binary(div, dy, x)]);
}
