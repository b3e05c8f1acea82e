import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { adamw, adamwStep } from "../../kernels/adamw/kernel.ts";
import { fill } from "../../kernels/fill/kernel.ts";
import { gradientNorm } from "../../kernels/gradient_norm/kernel.ts";
import { Storage } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import { sizeOf, Tensor, untrainable } from "../engine/tensor.ts";

/** A leaf and its name, as `module.namedParameters()` gives them. */
export type NamedParameter = readonly [name: string, parameter: Tensor];

/** What may differ between groups of parameters. */
export interface Rates {
  /** In weight units a step: 1e-3. */
  readonly learningRate?: number;
  /** Of parameters with two axes or more, as nanoGPT has it: 0.01. */
  readonly weightDecay?: number;
}

/** Defaults are PyTorch's. */
export interface AdamWOptions extends Rates {
  /** Of the moving averages of the gradient and of its square: 0.9 and 0.999. */
  readonly betas?: readonly [number, number];
  /** Keeps the quotient finite where gradients vanish: 1e-8. */
  readonly epsilon?: number;
}

/** Parameters with rates of their own; what is left out is the optimizer's. */
export interface ParameterGroup extends Rates {
  /** With their names. */ readonly parameters: Iterable<NamedParameter>;
  /**
   * The optimizer's steps before the group is trained: until then its parameters are frozen, and its own count of steps begins
   * there, as PyTorch's does for parameters that had no gradient before. Default 0.
   */
  readonly from?: number;
}

/** What may change from step to step. */
export interface StepOptions {
  /** This step's instead of the optimizer's: schedules. A group's own rate changes by the same factor. */
  readonly learningRate?: number;
  /** Gradients of a greater norm, over all parameters, are scaled down to it; default 0: off. */
  readonly gradClip?: number;
}

interface Slot {
  readonly name: string;
  readonly parameter: Tensor;
  readonly gradient: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
}

/** A part of the storages, which one launch updates. */
interface Group {
  readonly rates: Rates;
  /** Steps before it is trained. */
  readonly from: number;
  readonly parameters: readonly Tensor[];
  readonly parts: Record<"parameter" | "gradient" | "m" | "v" | "step", Tensor>;
  /** Elements before this one decay. */
  readonly decayed: number;
}

/** Slices begin at multiples of this number of elements, 256 bytes: what every device can bind. */
const ALIGNMENT = 64;

/**
 * AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), as `torch.optim.AdamW` after `clip_grad_norm_`. With g the clipped
 * gradient, in step t:
 *
 *     m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
 *     p ← (1 − lr · decay) p − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)
 *
 * It lays all parameters side by side in one storage, and so their gradients and moving averages, and a step is one launch for
 * the norm and one for each group. Gradients are there from the start and zero, so a parameter that the loss does not reach decays, which
 * PyTorch's would only after it has had a gradient once.
 *
 * @see https://pytorch.org/docs/stable/generated/torch.optim.AdamW.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { AdamW, createDevice } from "@nanogpt/ts";
 * import { mul } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const x = device.tensor([3], [1], { requiresGrad: true });
 * const optimizer = new AdamW([["x", x]], { learningRate: 0.5 });
 * mul(x, x).backward();
 * optimizer.step(); // the first step is of the rate's size, whatever the gradient's
 * optimizer.zeroGrad();
 * assertEquals([await x.item(), await x.grad!.item()], [2.5, 0]);
 * device.close();
 * ```
 */
export class AdamW implements Disposable {
  /** Steps made. */
  t = 0;
  /** (1): of the gradients of the last step, before clipping. */
  readonly gradNorm: Tensor;
  #slots: Slot[] = [];
  readonly #gradient: Tensor;
  readonly #groups: Group[] = [];
  readonly #options: Required<AdamWOptions>;

  /**
   * Takes parameters over, laid side by side.
   * @param parameters leaves by name, or groups of them; each moves into the optimizer's storage, contents and gradient
   * @throws {ConfigError} when a beta is not from 0 to below 1, another option negative, or there are no parameters, or one
   *   of them twice, or one that requires no gradient
   * @throws {DeviceError} when its storages do not fit; every parameter is where it was then
   */
  constructor(parameters: Iterable<NamedParameter> | Iterable<ParameterGroup>, options: AdamWOptions = {}) {
    const { learningRate = 1e-3, betas = [0.9, 0.999], weightDecay = 0.01, epsilon = 1e-8 } = options;
    this.#options = { learningRate, betas, weightDecay, epsilon };
    checked("AdamW", { learningRate, weightDecay, epsilon });
    if (!betas.every((beta) => beta >= 0 && beta < 1)) {
      throw new ConfigError(`AdamW: betas are ${betas}; expected 0 to below 1`);
    }
    const groups = groupsOf([...parameters]), all = groups.flatMap(({ ordered }) => ordered);
    if (all.length === 0) throw new ConfigError("AdamW: no parameters");
    refuseOthers(all);

    const { device } = all[0][1], length = all.reduce((sum, [, { size }]) => sum + padded(size), 0);
    using _ = device.scope(); // what it takes, before anything moves
    const arena = () => launch(fill, { y: device.empty([length]) }, { value: 0 }).y; // padding stays zero
    const arenas = { parameter: arena(), gradient: arena(), m: arena(), v: arena() };
    const part = ({ storage: { block } }: Tensor, shape: readonly number[], offset: number) =>
      new Tensor(new Storage(block, sizeOf(shape), offset), shape);
    this.#gradient = arenas.gradient;
    this.gradNorm = device.tensor([0], [1]);
    let offset = 0;
    for (const { ordered, rates, from } of groups) {
      const first = offset;
      let decayed = 0;
      for (const [name, parameter] of ordered) {
        const own = (arena: Tensor) => part(arena, parameter.shape, offset);
        this.#slots.push({ name, parameter, gradient: own(arenas.gradient), m: own(arenas.m), v: own(arenas.v) });
        offset += padded(parameter.size);
        if (decays(parameter)) decayed = offset - first;
      }
      if (offset === first) continue;
      const own = (arena: Tensor) => part(arena, [offset - first], first), { parameter, gradient, m, v } = arenas;
      const parts = { parameter: own(parameter), gradient: own(gradient), m: own(m), v: own(v) };
      const parameters = ordered.map(([, one]) => one);
      this.#groups.push({ rates, from, parameters, parts: { ...parts, step: device.empty([4]) }, decayed });
    }
    const flat = (tensor: Tensor) => tensor.alias([tensor.size]);
    for (const { parameter, gradient } of this.#slots) {
      const place = part(arenas.parameter, [parameter.size], gradient.storage.offset);
      launch(accumulate, { x: flat(parameter), sum: place });
      parameter.rebind(place.storage);
      if (parameter.grad) launch(accumulate, { x: flat(parameter.grad), sum: flat(gradient) });
      parameter.grad?.dispose();
      parameter.grad = gradient;
    }
    for (const tensor of this.#tensors()) tensor.scope = undefined; // it lives as long as the optimizer
    this.#thaw(1);
  }

  /** Has those groups trained, and no others, whose turn it is in a step. */
  #thaw(step: number): void {
    for (const { from, parameters } of this.#groups) {
      if (from > 0) { for (const parameter of parameters) parameter.requiresGrad = step > from; }
    }
  }

  *#tensors(): Generator<Tensor> {
    for (const { gradient, m, v } of this.#slots) yield* [gradient, m, v];
    for (const { parts } of this.#groups) yield* Object.values(parts);
    yield* [this.#gradient, this.gradNorm];
  }

  /**
   * Updates every parameter from its gradient: {@linkcode prepare}, then {@linkcode update}.
   *
   * @param options.learningRate in weight units a step; default: the optimizer's
   * @param options.gradClip the norm, over all gradients, to scale them down to; default 0: off
   * @throws {ConfigError} when one of them is negative
   * @throws {TypeError} when a gradient is no longer the one that the optimizer laid out
   */
  step(options: StepOptions = {}): void {
    this.prepare(options);
    this.update();
    this.#thaw(this.t + 1);
  }
  /**
   * Counts a step and brings its numbers to the device: what comes before the forward pass, where groups begin to be trained later,
   * and before each replay of a captured {@linkcode update}.
   */
  prepare({ learningRate = this.#options.learningRate, gradClip = 0 }: StepOptions = {}): void {
    checked("step", { learningRate, gradClip });
    const { betas, learningRate: base, weightDecay } = this.#options, clip = gradClip || Infinity, t = ++this.t;
    this.#thaw(t);
    for (const { rates, from, parts: { step } } of this.#groups) {
      if (t <= from) continue;
      // A group's own rate is to this step's as it is to the optimizer's; beside one of 0 it stays as it is.
      const own = rates.learningRate, rate = own === undefined ? learningRate : own * (base ? learningRate / base : 1);
      step.device.write(
        step.storage,
        adamwStep({ weightDecay, ...rates, t: t - from, learningRate: rate, betas, clip }),
      );
    }
  }
  /**
   * The launches of a step, with the numbers that {@linkcode prepare} has brought.
   *
   * @throws {TypeError} when a gradient is not the one that the optimizer laid out, or a parameter has been frozen since
   */
  update(): void {
    const { betas: [beta1, beta2], epsilon } = this.#options;
    const waiting = new Set(this.#groups.filter(({ from }) => this.t <= from).flatMap(({ parameters }) => parameters));
    for (const { name, parameter, gradient } of this.#slots) {
      if (!parameter.requiresGrad && !waiting.has(parameter)) {
        throw new TypeError(`AdamW: ${name} was frozen; make a new optimizer without it`);
      }
      if (parameter.grad === gradient) continue;
      throw new TypeError(`AdamW: ${name}.grad was replaced; clear it with zeroGrad()`);
    }
    launch(gradientNorm, { gradient: this.#gradient, norm: this.gradNorm });
    for (const { from, parts, decayed } of this.#groups) {
      if (this.t <= from) continue;
      launch(
        adamw,
        { ...parts, norm: this.gradNorm },
        { decayed, gain1: 1 - beta1, beta2, gain2: 1 - beta2, epsilon },
      );
    }
  }

  /** Sets all gradients to zero: before the next backward, which adds. */
  zeroGrad(): void {
    launch(fill, { y: this.#gradient }, { value: 0 });
  }

  /** The moving averages under PyTorch's names, `NAME.exp_avg` and `NAME.exp_avg_sq`: with {@linkcode t}, what to save. */
  *namedState(): Generator<[name: string, tensor: Tensor]> {
    for (const { name, m, v } of this.#slots) {
      yield [`${name}.exp_avg`, m];
      yield [`${name}.exp_avg_sq`, v];
    }
  }

  /** Frees what it holds. The parameters keep their values, and lose the gradients that it laid out. */
  dispose(): void {
    this.#thaw(Infinity);
    for (const { parameter, gradient } of this.#slots) {
      if (parameter.grad === gradient) parameter.grad = undefined; // else a newer optimizer's, or the caller's
    }
    for (const tensor of this.#tensors()) tensor.dispose();
    this.#slots = [];
    this.#groups.length = 0;
  }
  /** As dispose(). */ [Symbol.dispose](): void {
    this.dispose();
  }
}

const decays = ({ shape }: Tensor): boolean => shape.length >= 2;
const padded = (size: number): number => Math.ceil(size / ALIGNMENT) * ALIGNMENT;

/** Groups, those that decay first in each. Parameters without a group are one. */
function groupsOf(
  given: readonly (NamedParameter | ParameterGroup)[],
): { ordered: NamedParameter[]; rates: Rates; from: number }[] {
  const groups = given.length > 0 && "parameters" in given[0]
    ? given as readonly ParameterGroup[]
    : [{ parameters: given as readonly NamedParameter[] }];
  return groups.map(({ parameters, from = 0, ...rates }) => {
    for (const [name, value] of Object.entries({ ...rates, from })) checked("AdamW: a group", { [name]: value });
    const all = [...parameters];
    return {
      rates,
      from,
      ordered: [...all.filter(([, one]) => decays(one)), ...all.filter(([, one]) => !decays(one))],
    };
  });
}

function refuseOthers(all: readonly NamedParameter[]): void {
  const seen = new Set<Tensor>();
  for (const [name, parameter] of all) {
    if (seen.has(parameter)) throw new ConfigError(`AdamW: ${name} is there twice, under two names or in two groups`);
    seen.add(parameter);
    const stored = untrainable(parameter.storage);
    if (stored) {
      throw new ConfigError(
        `AdamW: ${name} is stored in ${stored}, which cannot be trained; make the model with f32 weights`,
      );
    }
    if (!parameter.requiresGrad) {
      throw new ConfigError(`AdamW: ${name} requires no gradient; leave it out, or unfreeze it`);
    }
  }
}

function checked(what: string, options: Record<string, number>): void {
  for (const [name, value] of Object.entries(options)) {
    if (!(value >= 0)) throw new ConfigError(`${what}: ${name} is ${value}; expected 0 or above`);
  }
}
