import { geluErf, geluTanh } from "../../kernels/gelu/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * x · Φ(x), where Φ is the cumulative distribution function of the normal distribution, like `torch.nn.functional.gelu`
 * (Hendrycks and Gimpel 2016, arXiv:1606.08415).
 *
 * @param x f32, any shape
 * @param options.approximate `none` (the default, as in nanoGPT): Φ(x) = ½ (1 + erf(x / √2)). `tanh`, which GPT-2 was
 *   trained with: Φ(x) ≈ ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))
 * @returns f32, the shape of x
 * @throws {ConfigError} when `approximate` is neither `none` nor `tanh`
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.gelu.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { gelu } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const [far, zero, one] = await gelu(device.tensor([-100, 0, 1], [3])).data();
 * assertEquals([Math.abs(far), zero, one.toFixed(4)], [0, 0, "0.8413"]); // 84 % of a normal distribution are below one deviation
 * device.close();
 * ```
 */
export function gelu(x: Tensor, { approximate = "none" }: { approximate?: "none" | "tanh" } = {}): Tensor {
  if (approximate !== "none" && approximate !== "tanh") {
    throw new ConfigError(`Cannot apply gelu to [${x.shape}]: approximate is ${approximate}, expected none or tanh`);
  }
  using scope = x.device.scope("gelu");
  const kernels = approximate === "tanh" ? geluTanh : geluErf, flat = [x.size];
  const y = launch(kernels.forward, { x: x.alias(flat) }).y.alias(x.shape);
  record("gelu", y, [x], [x], (dout, [into]) => {
    const { dx } = launch(kernels.backward, { dy: dout.alias(flat), x: x.alias(flat), dx: into?.alias(flat) });
    return [dx.alias(x.shape)];
  });
  return scope.keep(y);
}
