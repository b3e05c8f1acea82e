import { layOutWeight, linear } from "../ops/linear.ts";
import type { Tensor } from "../engine/tensor.ts";
import { generatorOf, Module, type ModuleOptions, parameter } from "./module.ts";

/**
 * y = x · Wᵀ + b, as `torch.nn.Linear`: W (out, in) and b (out) begin uniform in ±1/√in.
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
   * A layer with initial weights as PyTorch draws them.
   * @param inputs length of the last axis of what comes in
   * @param outputs and of what goes out
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
   * x · weightᵀ + bias.
   * @param x f32 (…, in)
   * @returns f32 (…, out)
   * @throws {ShapeError} when the last axis of x has another length
   */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias);
  }
}

/** Makes copies in panels of all weights of a module's linear layers: before it generates. See {@linkcode layOutWeight}. */
export function layOutWeights(module: Module): void {
  for (const layer of module.modules()) if (layer instanceof Linear) layOutWeight(layer.weight);
}
