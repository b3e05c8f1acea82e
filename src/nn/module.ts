/** The base class of layers. It finds parameters by walking the fields, as PyTorch's `nn.Module` does. */
import type { Device } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { RandomGenerator } from "../random/mod.ts";
import { layout } from "../engine/storage.ts";
import { sizeOf, Tensor, untrainable } from "../engine/tensor.ts";

/** Options of a layer: its device, the type of its weights, and how they are initialised. */
export interface ModuleOptions {
  /** The device that holds the parameters. */ readonly device: Device;
  /**
   * The type in which matrices are stored; default `f32`. `bf16` takes half the memory and `q8_0` about a quarter, but
   * they cannot be trained.
   */
  readonly weights?: "f32" | "bf16" | "q8_0";
  /**
   * Whether only `linear` and `embedding` will read the matrices; the device may then store them in panels. Default
   * false.
   */
  readonly inference?: boolean;
  /** Generator of the initial weights. Default: one that all layers of the process share, seeded with 0. */
  readonly generator?: RandomGenerator;
  /**
   * Whether to draw initial weights; default true. Pass false if you will load every weight: until then they are
   * undefined.
   */
  readonly initialize?: boolean;
}

/** Selects parameters of a module. */
export interface ParameterOptions {
  /** Whether to leave out parameters that are frozen or not stored in f32; default false. */
  readonly trainable?: boolean;
}

/**
 * A layer with parameters, like `torch.nn.Module`.
 *
 * A field with a tensor of floats (any dtype but i32) is a parameter. A field with a module, or with a list or record
 * of modules, adds the parameters of these modules. To hold a tensor that is not a parameter, use a `#private` field.
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
  /** Whether the module is in training mode: dropout is on. */
  training = true;

  /**
   * Yields the parameters with their names (`transformer.h.0.attn.c_attn.weight`), in the order of the fields. A tied
   * weight, which has two names, is yielded once, under the first.
   *
   * @param options.trainable whether to leave out parameters that are frozen or not stored in f32; default false
   */
  *namedParameters({ trainable = false }: ParameterOptions = {}): Generator<[name: string, parameter: Tensor]> {
    const seen = new Set<Tensor>();
    for (const [name, value] of leaves(this, "")) {
      if (seen.has(value) || (trainable && !value.requiresGrad)) continue;
      seen.add(value);
      yield [name, value];
    }
  }
  /** Yields the parameters without their names, in the order of {@linkcode namedParameters}. */
  *parameters(options?: ParameterOptions): Generator<Tensor> {
    for (const [, parameter] of this.namedParameters(options)) yield parameter;
  }
  /**
   * Excludes the module's parameters from training: backward computes no gradients for them and stops at the lowest
   * layer that is still trained. Call it before you make an optimizer, which then takes the parameters that are not
   * frozen.
   */
  freeze(): this {
    for (const parameter of this.parameters()) parameter.requiresGrad = false;
    return this;
  }
  /**
   * Makes the module's parameters trainable again.
   *
   * @throws {ConfigError} when a parameter is not stored in f32, or is stored in panels; no parameter is changed then
   */
  unfreeze(): this {
    for (const [name, { storage }] of this.namedParameters()) {
      const stored = untrainable(storage);
      if (!stored) continue;
      throw new ConfigError(
        `unfreeze: ${name} is stored in ${stored}, which cannot be trained; make the model with f32 weights` +
          (stored === "panels" ? " and without the option inference" : ""),
      );
    }
    for (const parameter of this.parameters()) parameter.requiresGrad = true;
    return this;
  }
  /** Yields all modules inside this one, then the module itself: the order of `nn.Module.apply`. */
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
   * Announces that fields have changed: for example a layer was replaced by an adapter, or a flag changes what
   * `forward` does. Programs captured from this module are then checked, and captured again if they are out of date.
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
 * Runs `body` with `module` in evaluation mode (dropout is off), then restores the mode of every module inside, even if
 * `body` throws.
 *
 * @returns what `body` returns
 * @throws {TypeError} when `body` is asynchronous: other code could run in between and find the model in evaluation
 *   mode
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

/** Whether a value is an array or a plain object, which may hold layers. */
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
 * Makes a parameter and, unless `initialize` is false, writes the values that `fill` puts into an array. A parameter of
 * two axes or more is stored in the type `weights`.
 */
export function parameter(
  { device, weights = "f32", inference = false, initialize = true }: ModuleOptions,
  shape: readonly number[],
  fill: (values: Float32Array) => void,
): Tensor {
  using scope = device.scope(); // frees the tensor if `fill` throws
  const [rows, length] = shape, dtype = shape.length > 1 ? weights : "f32", panels = inference || dtype !== "f32";
  const matrix = shape.length === 2 && panels ? [rows, length] as const : undefined;
  if (dtype === "q8_0" && length % 32 > 0) {
    throw new ConfigError(
      `[${shape}]: the row length ${length} is not a multiple of 32, which weights in q8_0 need; use f32 or bf16`,
    );
  }
  const storage = device.allocate(sizeOf(shape), dtype, { lasting: true, matrix });
  const tensor = new Tensor(storage, shape, { requiresGrad: !untrainable(storage) });
  if (initialize) device.fill(storage, fill);
  return scope.keep(tensor);
}

let shared: RandomGenerator | undefined;

/** Returns the generator for a module's initial weights. */
export const generatorOf = ({ generator }: ModuleOptions): RandomGenerator =>
  generator ?? (shared ??= new RandomGenerator(0));
