import { linear } from "../ops/linear.ts";
import type { Tensor } from "../tensor.ts";
import { generatorOf, Module, type ModuleOptions, parameter } from "./module.ts";

/**
 * y = x · Wᵀ + b, as `torch.nn.Linear`: W (out, in) and b (out) begin uniform in ±1/√in.
 *
 * @see https://pytorch.org/docs/stable/generated/torch.nn.Linear.html
 */
export class Linear extends Module {
  /** (out, in) */
  weight: Tensor;
  /** (out) */
  bias: Tensor | undefined;

  constructor(inputs: number, outputs: number, { bias = true, ...options }: ModuleOptions & { bias?: boolean }) {
    super();
    const bound = 1 / Math.sqrt(inputs), generator = generatorOf(options);
    const draw = (values: Float32Array) => generator.uniform(values, -bound, bound);
    this.weight = parameter(options, [outputs, inputs], draw);
    this.bias = bias ? parameter(options, [outputs], draw) : undefined;
  }
  /** @param x (…, in) @returns (…, out) */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}
