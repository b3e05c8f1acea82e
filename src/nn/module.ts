/** The base of layers: parameters are found by walking the fields, as PyTorch's `nn.Module` does. */
import type { Device } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { RandomGenerator } from "../random/mod.ts";
import { layout } from "../engine/storage.ts";
import { sizeOf, Tensor, untrainable } from "../engine/tensor.ts";

/** Where a module's parameters live, and what their initial values are drawn from. */
export interface ModuleOptions {
  /** Where parameters are made. */ readonly device: Device;
  /** How matrices are stored: `f32` (the default), or `bf16`, in half the memory and without a gradient of their own. */
  readonly weights?: "f32" | "bf16" | "q8_0";
  /** Whether matrices are only going to be read by `linear` and `embedding`, so that the device may lay them out for that; default false. */
  readonly inference?: boolean;
  /** Default: one for all layers of the process, seeded with 0, so that each layer gets weights of its own. */
  readonly generator?: RandomGenerator;
  /** Whether there are initial values at all; false leaves them undefined, for one who is going to write them. */
  readonly initialize?: boolean;
}

/** Which parameters are meant. */
export interface ParameterOptions {
  /** Those alone that are trained: f32, and not frozen. */
  readonly trainable?: boolean;
}

/**
 * A layer with parameters, as `torch.nn.Module`: a field that is a tensor of floats (f32, bf16) is a parameter, frozen or not; a
 * field that is a module, or a list or record of them, holds more. A tensor that is not to be a parameter stands in a `#private`
 * field.
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
export abstract class Module implements Disposable {
  /** Dropout works in training only. */
  training = true;

  /**
   * Parameters with their paths (`transformer.h.0.attn.c_attn.weight`), in the order of the fields; one that stands in two
   * places, a tied weight, comes once, under its first name.
   *
   * @param options.trainable whether to leave out those that are frozen or stored in bf16; default false
   */
  *namedParameters({ trainable = false }: ParameterOptions = {}): Generator<[name: string, parameter: Tensor]> {
    const seen = new Set<Tensor>();
    for (const [name, value] of leaves(this, "")) {
      if (seen.has(value) || (trainable && !value.requiresGrad)) continue;
      seen.add(value);
      yield [name, value];
    }
  }
  /** The same without their names. */
  *parameters(options?: ParameterOptions): Generator<Tensor> {
    for (const [, parameter] of this.namedParameters(options)) yield parameter;
  }
  /**
   * Leaves the module's parameters as they are from now on: backward computes no gradients for them, and nothing below the
   * lowest layer that is trained. Before an optimizer is made, which then takes only the others.
   */
  freeze(): this {
    for (const parameter of this.parameters()) parameter.requiresGrad = false;
    return this;
  }
  /**
   * Has the module's parameters trained again.
   *
   * @throws {ConfigError} when one is stored in bf16, which has no gradient; nothing is changed then
   */
  unfreeze(): this {
    for (const [name, { storage }] of this.namedParameters()) {
      const stored = untrainable(storage);
      if (!stored) continue;
      throw new ConfigError(
        `unfreeze: ${name} is stored in ${stored}, which cannot be trained; make the model with f32 weights` +
          (stored === "panels" ? ", and not for inference" : ""),
      );
    }
    for (const parameter of this.parameters()) parameter.requiresGrad = true;
    return this;
  }
  /** This module and all within, parents last, as `nn.Module.apply` visits them. */
  *modules(): Generator<Module> {
    for (const value of Object.values(this)) yield* modulesIn(value);
    yield this;
  }
  /** Switches dropout on. */
  train(): this {
    for (const module of this.modules()) switchMode(module, true);
    return this;
  }
  /** Switches dropout off: for evaluation and sampling. */
  eval(): this {
    for (const module of this.modules()) switchMode(module, false);
    return this;
  }
  /**
   * Says that fields have changed, such as an adapter put in place of a layer, or a flag in a field that decides what
   * `forward` does: programs that were captured from a model with other fields are captured anew.
   */
  changed(): void {
    layout.changes++;
  }
  /** Frees every parameter and its gradient. */
  dispose(): void {
    for (const parameter of this.parameters()) {
      parameter.grad?.dispose();
      parameter.dispose();
    }
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Runs `body` with dropout off in all of `module`, and puts every module back into its mode, even where `body` throws.
 *
 * @returns what `body` returns
 * @throws {TypeError} when `body` is asynchronous, for other code would meet the model in evaluation
 */
export function evaluating<T>(module: Module, body: () => T): T {
  const trained = [...module.modules()].filter(({ training }) => training);
  try {
    module.eval();
    const result = body();
    if (result instanceof Promise) throw new TypeError("evaluating: the body must not be asynchronous");
    return result;
  } finally {
    for (const one of trained) one.training = true;
    if (trained.length > 0) layout.changes++;
  }
}

function switchMode(module: Module, training: boolean): void {
  if (module.training !== training) layout.changes++;
  module.training = training;
}

/** A container that is not a module: a list of layers, or a record of them. */
export const isContainer = (value: unknown): value is Record<string, unknown> =>
  Array.isArray(value) ||
  (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype);

function* modulesIn(value: unknown): Generator<Module> {
  if (value instanceof Module) yield* value.modules();
  else if (isContainer(value)) { for (const item of Object.values(value)) yield* modulesIn(item); }
}

function* leaves(value: unknown, path: string): Generator<[string, Tensor]> {
  if (value instanceof Tensor) { if (value.dtype !== "i32") yield [path, value]; }
  else if (value instanceof Module || isContainer(value)) {
    for (const [name, item] of Object.entries(value)) yield* leaves(item, path ? `${path}.${name}` : name);
  }
}

/**
 * A parameter with values from the host, which `fill` writes, unless they are undefined; one of two axes or more is stored as
 * `weights` says.
 */
export function parameter(
  { device, weights = "f32", inference = false, initialize = true }: ModuleOptions,
  shape: readonly number[],
  fill: (values: Float32Array) => void,
): Tensor {
  using scope = device.scope(); // frees it where `fill` throws
  const [rows, length] = shape, dtype = shape.length > 1 ? weights : "f32", panels = inference || dtype !== "f32";
  const matrix = shape.length === 2 && panels ? [rows, length] as const : undefined;
  if (dtype === "q8_0" && length % 32 > 0) {
    throw new ConfigError(
      `[${shape}]: weights in q8_0 have rows of a multiple of 32, expected another width than ${length}`,
    );
  }
  const storage = device.allocate(sizeOf(shape), dtype, { lasting: true, matrix });
  const tensor = new Tensor(storage, shape, { requiresGrad: !untrainable(storage) });
  if (initialize) device.fill(storage, fill);
  return scope.keep(tensor);
}

let shared: RandomGenerator | undefined;

/** The generator that a module draws from. */
export const generatorOf = ({ generator }: ModuleOptions): RandomGenerator =>
  generator ?? (shared ??= new RandomGenerator(0));
