import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { adamw, adamwStep } from "../../kernels/adamw/kernel.ts";
import { fill } from "../../kernels/fill/kernel.ts";
import { gradientNorm } from "../../kernels/gradient_norm/kernel.ts";
import { Storage } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import { Tensor } from "../engine/tensor.ts";

/** Defaults are PyTorch's. */
export interface AdamWOptions {
  /** In weight units a step: 1e-3. */
  readonly learningRate?: number;
  /** Of the moving averages of the gradient and of its square: 0.9 and 0.999. */
  readonly betas?: readonly [number, number];
  /** Of parameters with two axes or more, as nanoGPT has it: 0.01. */
  readonly weightDecay?: number;
  /** Keeps the quotient finite where gradients vanish: 1e-8. */
  readonly epsilon?: number;
}

export interface StepOptions {
  /** This step's instead of the optimizer's: schedules. */
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

/** Slices begin at multiples of so many elements, 256 bytes: what every device can bind. */
const ALIGNMENT = 64;

/**
 * AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), as `torch.optim.AdamW` after `clip_grad_norm_`. With g the clipped
 * gradient, in step t:
 *
 *     m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
 *     p ← (1 − lr · decay) p − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)
 *
 * It lays all parameters side by side in one storage, and so their gradients and moving averages, and a step is two
 * launches. Gradients are there from the start and zero, so a parameter that the loss does not reach decays, which
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
export class AdamW {
  /** Steps made. */
  t = 0;
  /** (1): of the gradients of the last step, before clipping. */
  readonly gradNorm: Tensor;
  #slots: Slot[] = [];
  #arenas: Record<"parameter" | "gradient" | "m" | "v", Tensor>;
  #step: Tensor;
  #decayed: number;
  #options: Required<AdamWOptions>;

  /**
   * @param parameters leaves by name; each moves into the optimizer's storage, contents and gradient
   * @throws {ConfigError} when a beta is not from 0 to below 1, another option negative, or there are no parameters, or one
   *   of them twice
   */
  constructor(parameters: Iterable<readonly [name: string, parameter: Tensor]>, options: AdamWOptions = {}) {
    const { learningRate = 1e-3, betas = [0.9, 0.999], weightDecay = 0.01, epsilon = 1e-8 } = options;
    this.#options = { learningRate, betas, weightDecay, epsilon };
    checked("AdamW", { learningRate, weightDecay, epsilon });
    if (!betas.every((beta) => beta >= 0 && beta < 1)) {
      throw new ConfigError(`AdamW: betas are ${betas}; expected 0 to below 1`);
    }
    const all = [...parameters], decays = ([, { shape }]: typeof all[number]) => shape.length >= 2;
    if (all.length === 0) throw new ConfigError("AdamW: no parameters");
    const twice = all.find(([, parameter], i) => all.findIndex(([, other]) => other === parameter) < i);
    if (twice) throw new ConfigError(`AdamW: ${twice[0]} is there twice, under two names`);
    const [kept] = all.find(([, { dtype }]) => dtype === "bf16") ?? [];
    if (kept) {
      throw new ConfigError(`AdamW: ${kept} is kept in bf16, for inference; a model is trained with f32 weights`);
    }

    const offsets: number[] = [], device = all[0][1].device;
    const ordered = [...all.filter(decays), ...all.filter((one) => !decays(one))];
    let length = 0;
    this.#decayed = 0;
    for (const one of ordered) {
      offsets.push(length);
      length += Math.ceil(one[1].size / ALIGNMENT) * ALIGNMENT;
      if (decays(one)) this.#decayed = length;
    }
    const arena = () => launch(fill, { y: Tensor.empty(device, [length]) }, { value: 0 }).y; // padding stays zero
    const own = <T extends Tensor>(tensor: T): T => {
      tensor.scope = undefined; // it lives as long as the optimizer
      return tensor;
    };
    this.#arenas = { parameter: own(arena()), gradient: own(arena()), m: own(arena()), v: own(arena()) };
    this.gradNorm = own(device.tensor([0], [1]));
    this.#step = own(Tensor.empty(device, [4]));

    using _ = device.scope();
    const flat = (tensor: Tensor) => tensor.view([tensor.size]);
    for (const [i, [name, parameter]] of ordered.entries()) {
      const slice = ({ storage }: Tensor) => new Storage(storage.block, parameter.size, offsets[i]);
      const part = (arena: Tensor) => own(new Tensor(slice(arena), parameter.shape));
      const { gradient, m, v } = this.#arenas,
        slot = { name, parameter, gradient: part(gradient), m: part(m), v: part(v) };
      launch(accumulate, { x: flat(parameter), sum: new Tensor(slice(this.#arenas.parameter), [parameter.size]) });
      parameter.rebind(slice(this.#arenas.parameter));
      if (parameter.grad) launch(accumulate, { x: flat(parameter.grad), sum: flat(slot.gradient) });
      parameter.grad?.dispose();
      parameter.grad = slot.gradient;
      this.#slots.push(slot);
    }
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
  }
  /** Counts a step and brings its numbers to the device: what comes before each replay of a captured {@linkcode update}. */
  prepare({ learningRate = this.#options.learningRate, gradClip = 0 }: StepOptions = {}): void {
    checked("step", { learningRate, gradClip });
    const { betas, weightDecay } = this.#options, clip = gradClip || Infinity;
    const values = adamwStep({ t: ++this.t, learningRate, weightDecay, betas, clip });
    this.#step.device.write(this.#step.storage, values);
  }
  /** The launches of a step, with the numbers that {@linkcode prepare} has brought. */
  update(): void {
    const { betas: [beta1, beta2], epsilon } = this.#options, { gradient } = this.#arenas;
    for (const { name, parameter, gradient } of this.#slots) {
      if (parameter.grad !== gradient) {
        throw new TypeError(`AdamW: ${name}.grad was replaced; clear it with zeroGrad()`);
      }
    }
    launch(gradientNorm, { gradient, norm: this.gradNorm });
    launch(
      adamw,
      { ...this.#arenas, norm: this.gradNorm, step: this.#step },
      { decayed: this.#decayed, gain1: 1 - beta1, beta2, gain2: 1 - beta2, epsilon },
    );
  }

  /** Sets all gradients to zero: before the next backward, which adds. */
  zeroGrad(): void {
    launch(fill, { y: this.#arenas.gradient }, { value: 0 });
  }

  /** The moving averages under PyTorch's names, `NAME.exp_avg` and `NAME.exp_avg_sq`: with {@linkcode t}, what to save. */
  *namedState(): Generator<[name: string, tensor: Tensor]> {
    for (const { name, m, v } of this.#slots) {
      yield [`${name}.exp_avg`, m];
      yield [`${name}.exp_avg_sq`, v];
    }
  }

  /** Frees what it holds. The parameters keep their values, and lose their gradients. */
  dispose(): void {
    for (const { parameter, gradient, m, v } of this.#slots.splice(0)) {
      for (const tensor of [gradient, m, v]) tensor.dispose();
      parameter.grad = undefined;
    }
    for (const tensor of [...Object.values(this.#arenas), this.gradNorm, this.#step]) tensor.dispose();
  }
}

function checked(what: string, options: Record<string, number>): void {
  for (const [name, value] of Object.entries(options)) {
    if (!(value >= 0)) throw new ConfigError(`${what}: ${name} is ${value}; expected 0 or above`);
  }
}
