import type { UnaryKernel } from "../../kernels/unary/kernel.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** Computes y = kernel(x); does not record. */
export function unary(kernel: UnaryKernel, x: Tensor): Tensor {
  using scope = x.device.scope(kernel.name);
  return scope.keep(launch(kernel, { x: x.alias([x.size]) }).y.alias(x.shape));
}
