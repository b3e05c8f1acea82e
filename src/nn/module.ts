/** The base of layers: parameters are found by walking the fields, as PyTorch's `nn.Module` does. */
import type { Device } from "../engine/device.ts";
import { Generator as RandomGenerator } from "../random/mod.ts";
import { sizeOf, Tensor } from "../engine/tensor.ts";

/** Where a module's parameters live, and what their initial values are drawn from. */
export interface ModuleOptions {
  readonly device: Device;
  /** How matrices are kept: `f32` (the default), or `bf16` for inference, in half the memory, without gradients. */
  readonly weights?: "f32" | "bf16";
  /** Default: one seeded with 0. */
  readonly generator?: RandomGenerator;
  /** Whether there are initial values at all; false leaves them undefined, for one who is going to write them. */
  readonly initialize?: boolean;
}

/**
 * A layer with parameters, as `torch.nn.Module`: a field that is a tensor and requires a gradient, or is bf16, is a parameter, a
 * field that is a module, or a list or record of them, holds more.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, type Tensor } from "@nanogpt/ts";
 * import { Linear, Module } from "@nanogpt/ts/nn";
 * import { gelu } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * class Perceptron extends Module {
 *   layers = [new Linear(4, 8, { device, bias: false }), new Linear(8, 2, { device, bias: false })];
 *   forward(x: Tensor): Tensor {
 *     return this.layers[1].forward(gelu(this.layers[0].forward(x)));
 *   }
 * }
 * assertEquals([...new Perceptron().namedParameters()].map(([name]) => name), ["layers.0.weight", "layers.1.weight"]);
 * device.close();
 * ```
 */
export abstract class Module {
  /** Dropout works in training only. */
  training = true;

  /**
   * Parameters with their paths (`transformer.h.0.attn.c_attn.weight`), in the order of the fields; one that stands in two
   * places, a tied weight, comes once, under its first name.
   */
  *namedParameters(): Generator<[name: string, parameter: Tensor]> {
    const seen = new Set<Tensor>();
    for (const [name, value] of leaves(this, "")) {
      if (seen.has(value)) continue;
      seen.add(value);
      yield [name, value];
    }
  }
  /** The same without their names. */
  *parameters(): Generator<Tensor> {
    for (const [, parameter] of this.namedParameters()) yield parameter;
  }
  /** This module and all within, parents last, as `nn.Module.apply` visits them. */
  *modules(): Generator<Module> {
    for (const value of Object.values(this)) yield* modulesIn(value);
    yield this;
  }
  /** Switches dropout on, or with `false` off. */
  train(mode = true): this {
    for (const module of this.modules()) module.training = mode;
    return this;
  }
  /** Switches dropout off: for evaluation and sampling. */
  eval(): this {
    return this.train(false);
  }
  /** Frees every parameter and its gradient. */
  dispose(): void {
    for (const parameter of this.parameters()) {
      parameter.grad?.dispose();
      parameter.dispose();
    }
  }
}

/** A container that is not a module: a list of layers, or a record of them. */
const isContainer = (value: unknown): value is Record<string, unknown> =>
  Array.isArray(value) ||
  (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype);

function* modulesIn(value: unknown): Generator<Module> {
  if (value instanceof Module) yield* value.modules();
  else if (isContainer(value)) { for (const item of Object.values(value)) yield* modulesIn(item); }
}

function* leaves(value: unknown, path: string): Generator<[string, Tensor]> {
  if (value instanceof Tensor) { if (value.requiresGrad || value.dtype === "bf16") yield [path, value]; }
  else if (value instanceof Module || isContainer(value)) {
    for (const [name, item] of Object.entries(value)) yield* leaves(item, path ? `${path}.${name}` : name);
  }
}

/**
 * A parameter with values from the host, which `fill` writes, unless they are undefined; one of two axes or more is kept as
 * `weights` says.
 */
export function parameter(
  { device, weights = "f32", initialize = true }: ModuleOptions,
  shape: readonly number[],
  fill: (values: Float32Array) => void,
): Tensor {
  const dtype = shape.length > 1 ? weights : "f32";
  const storage = device.allocate(sizeOf(shape), dtype, { lasting: true });
  const tensor = new Tensor(storage, shape, { requiresGrad: dtype === "f32" });
  if (initialize) device.fill(storage, fill);
  return tensor;
}

/** The generator that a module draws from. */
export const generatorOf = ({ generator }: ModuleOptions): RandomGenerator => generator ?? new RandomGenerator(0);
