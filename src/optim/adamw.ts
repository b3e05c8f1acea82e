import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { adamw, adamwStep } from "../../kernels/adamw/kernel.ts";
import { fill } from "../../kernels/fill/kernel.ts";
import { gradientNorm } from "../../kernels/gradient_norm/kernel.ts";
import { Storage } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import { sizeOf, Tensor, untrainable } from "../engine/tensor.ts";

/** A parameter with its name: an entry of `module.namedParameters()`. */
export type NamedParameter = readonly [name: string, parameter: Tensor];

/** Options that can differ between groups of parameters. */
export interface Rates {
  /** Learning rate, in weight units per step; default 1e-3. */
  readonly learningRate?: number;
  /** Weight decay λ, only for parameters of two axes or more, as in nanoGPT; default 0.01. */
  readonly weightDecay?: number;
}

/** Options of {@linkcode AdamW}. The defaults are PyTorch's. */
export interface AdamWOptions extends Rates {
  /** Decay rates β₁ and β₂ of the moving averages of the gradient and of its square; default 0.9 and 0.999. */
  readonly betas?: readonly [number, number];
  /** ε, added to the divisor; default 1e-8. */
  readonly epsilon?: number;
}

/** Parameters with their own rates. A rate that is left out is the optimizer's. */
export interface ParameterGroup extends Rates {
  /** The parameters and their names. */ readonly parameters: Iterable<NamedParameter>;
  /**
   * Number of optimizer steps before the group is trained; default 0. Until then its parameters are frozen. The group
   * counts its own steps from there, as PyTorch does for parameters that had no gradient before.
   */
  readonly from?: number;
}

/** Options of one step. */
export interface StepOptions {
  /**
   * Learning rate of this step, for schedules; default: the optimizer's. If it is, say, half of the optimizer's rate,
   * groups with rates of their own use half of these, too.
   */
  readonly learningRate?: number;
  /** Maximum norm of all gradients together: if it is exceeded, all are scaled down to it. Default 0: no clipping. */
  readonly gradClip?: number;
}

interface Slot {
  readonly name: string;
  readonly parameter: Tensor;
  readonly gradient: Tensor;
  readonly m: Tensor;
  readonly v: Tensor;
}

/** A group's part of the optimizer's storages, which one launch updates. */
interface Group {
  readonly rates: Rates;
  /** Number of steps before the group is trained. */
  readonly from: number;
  readonly parameters: readonly Tensor[];
  readonly parts: Record<"parameter" | "gradient" | "m" | "v" | "step", Tensor>;
  /** Number of elements, from the first on, that weight decay applies to. */
  readonly decayed: number;
}

/** Slices start at multiples of 64 elements, 256 bytes: WebGPU's largest `minStorageBufferOffsetAlignment`. */
const ALIGNMENT = 64;

/**
 * AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), like `torch.optim.AdamW` after `clip_grad_norm_`. In step t,
 * where g is the clipped gradient:
 *
 *     m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
 *     p ← (1 − lr · decay) p − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)
 *
 * All parameters are moved into one storage, and so are their gradients, m and v. A step is then one launch for the
 * norm and one for each group. Gradients exist from the start, as zeros. So weight decay also applies to a parameter
 * that the loss does not depend on, while PyTorch skips a parameter until it has had a gradient.
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
 * optimizer.step(); // the first step has the size of the learning rate, if the gradient is far above ε
 * optimizer.zeroGrad();
 * assertEquals([await x.item(), await x.grad!.item()], [2.5, 0]);
 * device.close();
 * ```
 */
export class AdamW implements Disposable {
  /** Number of steps made so far. */
  t = 0;
  /** f32 (1): norm of all gradients in the last step, before clipping. */
  readonly gradNorm: Tensor;
  #slots: Slot[] = [];
  readonly #gradient: Tensor;
  readonly #groups: Group[] = [];
  readonly #options: Required<AdamWOptions>;

  /**
   * Moves the parameters, and their gradients, into the optimizer's storage.
   * @param parameters leaves with their names, or groups of them
   * @throws {ConfigError} when a beta is not from 0 to below 1, another option is negative, there are no parameters, or
   *   a parameter is listed twice or requires no gradient
   * @throws {DeviceError} when the storages do not fit into the memory; no parameter has moved then
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
    using _ = device.scope(); // if an allocation throws, frees the earlier ones; no parameter has moved yet
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

  /** Freezes the groups that are not trained in the given step, and unfreezes the groups that are. */
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
   * @param options.learningRate in weight units per step; default: the optimizer's
   * @param options.gradClip maximum norm of all gradients together; default 0: no clipping
   * @throws {ConfigError} when an option is negative
   * @throws {TypeError} when `grad` of a parameter was replaced, or a parameter has been frozen
   */
  step(options: StepOptions = {}): void {
    this.prepare(options);
    this.update();
    this.#thaw(this.t + 1);
  }
  /**
   * Counts a step and writes its numbers (rates, clipping) to the device. To replay a captured {@linkcode update}, call
   * this before each replay. If groups start later (`from`), call it before the forward pass, because it unfreezes
   * them.
   */
  prepare({ learningRate = this.#options.learningRate, gradClip = 0 }: StepOptions = {}): void {
    checked("step", { learningRate, gradClip });
    const { betas, learningRate: base, weightDecay } = this.#options, clip = gradClip || Infinity, t = ++this.t;
    this.#thaw(t);
    for (const { rates, from, parts: { step } } of this.#groups) {
      if (t <= from) continue;
      // A group's own rate is scaled like the optimizer's, by learningRate / base; if base is 0, it is not scaled.
      const own = rates.learningRate, rate = own === undefined ? learningRate : own * (base ? learningRate / base : 1);
      step.device.write(
        step.storage,
        adamwStep({ weightDecay, ...rates, t: t - from, learningRate: rate, betas, clip }),
      );
    }
  }
  /**
   * Launches the kernels of a step, with the numbers that {@linkcode prepare} wrote.
   *
   * @throws {TypeError} when `grad` of a parameter was replaced, or a parameter has been frozen
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

  /** Sets all gradients to zero. Call it before the next backward, which adds to them. */
  zeroGrad(): void {
    launch(fill, { y: this.#gradient }, { value: 0 });
  }

  /**
   * Yields m and v of each parameter under PyTorch's names, `NAME.exp_avg` and `NAME.exp_avg_sq`. Together with
   * {@linkcode t} they are the optimizer's state.
   */
  *namedState(): Generator<[name: string, tensor: Tensor]> {
    for (const { name, m, v } of this.#slots) {
      yield [`${name}.exp_avg`, m];
      yield [`${name}.exp_avg_sq`, v];
    }
  }

  /** Frees gradients, m and v. The parameters retain their values. */
  dispose(): void {
    this.#thaw(Infinity);
    for (const { parameter, gradient } of this.#slots) {
      if (parameter.grad === gradient) parameter.grad = undefined; // otherwise it is a newer optimizer's or the caller's
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

/** Returns groups, with the parameters that have weight decay first. A plain list of parameters is one group. */
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
    if (seen.has(parameter)) {
      throw new ConfigError(
        `AdamW: ${name} is there twice, under two names or in two groups; list each parameter once`,
      );
    }
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
