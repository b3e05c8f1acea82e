import { geluErf, geluTanh } from "../../kernels/gelu/kernel.ts";
import { record } from "../autograd.ts";
import { launch } from "../launch.ts";
import type { Tensor } from "../tensor.ts";

/**
 * x · Φ(x), Φ being the normal distribution's cumulative function, as `torch.nn.functional.gelu` (Hendrycks and Gimpel
 * 2016, arXiv:1606.08415).
 *
 * @param x any shape
 * @param options.approximate `none`: Φ by the error function, the default and nanoGPT's; `tanh`: as GPT-2 was trained
 * @returns the shape of x
 */
export function gelu(x: Tensor, { approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
  using scope = x.device.scope();
  const kernels = approximate === "tanh" ? geluTanh : geluErf, flat = [x.size];
  const y = launch(kernels.forward, { x: x.view(flat) }).y.view(x.shape);
  record("gelu", y, [x], [x], (dout, [into]) => {
    const { dx } = launch(kernels.backward, { dy: dout.view(flat), x: x.view(flat), dx: into?.view(flat) });
    return [dx.view(x.shape)];
  });
  return scope.keep(y);
}
