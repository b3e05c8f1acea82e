import { layOutWeight, linear } from "../ops/linear.ts";
import type { Tensor } from "../engine/tensor.ts";
import { generatorOf, Module, type ModuleOptions, parameter } from "./module.ts";

/**
 * A linear layer, y = x · Wᵀ + b, like `torch.nn.Linear`: W (out, in) and b (out) are initialised uniformly from
 * ±1/√in.
 *
 * @see https://pytorch.org/docs/stable/generated/torch.nn.Linear.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { Linear } from "@nanogpt/ts/nn";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const layer = new Linear(3, 5, { device });
 * assertEquals(layer.forward(device.tensor([1, 2, 3, 4, 5, 6], [2, 3])).shape, [2, 5]);
 * assertEquals([...layer.namedParameters()].map(([name]) => name), ["weight", "bias"]);
 * device.close();
 * ```
 */
export class Linear extends Module {
  /** (out, in) */
  weight: Tensor;
  /** (out) */
  bias: Tensor | undefined;

  /**
   * Makes a layer and draws its initial weights as PyTorch does.
   * @param inputs length of the input's last axis
   * @param outputs length of the output's last axis
   * @param options.bias whether there is a bias; default true
   */
  constructor(inputs: number, outputs: number, { bias = true, ...options }: ModuleOptions & { bias?: boolean }) {
    super();
    using scope = options.device.scope();
    const bound = 1 / Math.sqrt(inputs), generator = generatorOf(options);
    const draw = (values: Float32Array) => generator.uniform(values, -bound, bound);
    this.weight = parameter(options, [outputs, inputs], draw);
    this.bias = bias ? parameter(options, [outputs], draw) : undefined;
    scope.keepAll();
  }
  /**
   * Computes x · weightᵀ + bias.
   * @param x f32 (…, in)
   * @returns f32 (…, out)
   * @throws {ShapeError} when the last axis of x has another length
   */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

/**
 * Copies the weights of all linear layers of a module into panels, for faster generation. See {@linkcode layOutWeight}.
 */
export function layOutWeights(module: Module): void {
  for (const layer of module.modules()) if (layer instanceof Linear) layOutWeight(layer.weight);
}
