import { mul } from "../../kernels/binary/kernel.ts";
import { power } from "../../kernels/power/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary } from "./broadcast.ts";

/**
 * x to the power of a number, element by element, like `torch.pow`; NaN if x is negative and the exponent not a whole
 * number. dx = dy · exponent · x^(exponent − 1), which is zero everywhere if the exponent is 0.
 *
 * @param x f32, any shape
 * @param exponent a finite number
 * @returns f32, the shape of x
 * @throws {ConfigError} when the exponent is not finite
 * @see https://pytorch.org/docs/stable/generated/torch.pow.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { pow } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([1, 2, -3], [3], { requiresGrad: true });
 * const y = pow(x, 2);
 * y.backward(device.tensor([1, 1, 1], [3]));
 * assertEquals([...await y.data()], [1, 4, 9]);
 * assertEquals([...await x.grad!.data()], [2, 4, -6]);
 * device.close();
 * ```
 */
export function pow(x: Tensor, exponent: number): Tensor {
  if (!Number.isFinite(exponent)) {
    throw new ConfigError(`Cannot apply pow to [${x.shape}]: the exponent is ${exponent}, expected a finite number`);
  }
  const raise = (exponent: number, factor: number) => {
    using scope = x.device.scope("pow");
    return scope.keep(launch(power, { x: x.alias([x.size]) }, { exponent, factor }).y.alias(x.shape));
  };
  return record("pow", raise(exponent, 1), [x], [x], (dy) => {
    return [exponent === 0 ? raise(0, 0) : binary(mul, dy, raise(exponent - 1, exponent))];
  });
}
