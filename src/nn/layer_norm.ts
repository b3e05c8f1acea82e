import { layerNorm } from "../ops/layer_norm.ts";
import type { Tensor } from "../tensor.ts";
import { Module, type ModuleOptions, parameter } from "./module.ts";

/** Layer normalisation over the last axis, with a weight of ones and, unless refused, a bias of zeros. */
export class LayerNorm extends Module {
  /** (width) */
  weight: Tensor;
  /** (width) */
  bias: Tensor | undefined;

  constructor(width: number, { bias = true, ...options }: ModuleOptions & { bias?: boolean }) {
    super();
    this.weight = parameter(options, [width], (values) => values.fill(1));
    this.bias = bias ? parameter(options, [width], () => {}) : undefined;
  }
  /** @param x (…, width) @returns (…, width) */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias);
  }
}
