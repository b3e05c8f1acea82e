import { layerNorm } from "../ops/layer_norm.ts";
import type { Tensor } from "../engine/tensor.ts";
import { Module, type ModuleOptions, parameter } from "./module.ts";

/**
 * Layer normalisation over the last axis, like `torch.nn.LayerNorm`: (x − mean) / √(variance + ε) · weight + bias. The
 * weight is initialised with ones, the bias with zeros.
 *
 * @see https://pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { LayerNorm } from "@nanogpt/ts/nn";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const norm = new LayerNorm(2, { device, bias: false });
 * const [low, high] = await norm.forward(device.tensor([10, 30], [2])).data();
 * assertEquals([low.toFixed(3), high.toFixed(3)], ["-1.000", "1.000"]);
 * device.close();
 * ```
 */
export class LayerNorm extends Module {
  /** (width) */
  weight: Tensor;
  /** (width) */
  bias: Tensor | undefined;

  readonly #epsilon: number;

  /**
   * Makes a layer norm with weights 1 and biases 0.
   * @param width length of the last axis: C
   * @param options.bias whether there is a bias; default true
   * @param options.epsilon added to the variance, so that a row of equal elements does not divide by 0; default 1e-5
   */
  constructor(
    width: number,
    { bias = true, epsilon = 1e-5, ...options }: ModuleOptions & { bias?: boolean; epsilon?: number },
  ) {
    super();
    using scope = options.device.scope();
    this.#epsilon = epsilon;
    this.weight = parameter(options, [width], (values) => values.fill(1));
    this.bias = bias ? parameter(options, [width], () => {}) : undefined;
    scope.keepAll();
  }
  /**
   * Normalises the last axis.
   * @param x f32 (…, width)
   * @returns f32 (…, width)
   * @throws {ShapeError} when the last axis of x has another length
   */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, { epsilon: this.#epsilon });
  }
}
