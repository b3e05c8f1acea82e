import { mul } from "../../kernels/binary/kernel.ts";
import { power } from "../../kernels/power/kernel.ts";
import { record } from "../autograd.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../launch.ts";
import type { Tensor } from "../tensor.ts";
import { binary } from "./broadcast.ts";

/**
 * x to a power; NaN where x is negative and the exponent no whole number. dx = dy · exponent · x^(exponent − 1), which is
 * zero everywhere when the exponent is.
 *
 * @param exponent a finite number
 * @throws {ConfigError} when the exponent is not finite
 */
export function pow(x: Tensor, exponent: number): Tensor {
  if (!Number.isFinite(exponent)) throw new ConfigError(`Cannot apply pow to [${x.shape}] and ${exponent}`);
  const raise = (exponent: number, factor: number) => {
    using scope = x.device.scope();
    return scope.keep(launch(power, { x: x.view([x.size]) }, { exponent, factor }).y.view(x.shape));
  };
  return record("pow", raise(exponent, 1), [x], [x], (dy) => {
    return [exponent === 0 ? raise(0, 0) : binary(mul, dy, raise(exponent - 1, exponent))];
  });
}
