import type { Device } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { dropout } from "../ops/dropout.ts";
import type { Tensor } from "../engine/tensor.ts";
import { Module } from "./module.ts";

/**
 * The noise of a model's dropout: Philox4x32-10 with one seed, counted by forward passes.
 *
 * Each forward pass has an offset of its own, and each dropout in it a stream, so a mask is made again in backward rather
 * than kept, and training goes on bit for bit from {@linkcode passes} alone.
 */
export class DropoutNoise {
  /** (1) i32, on the device: what changes from step to step. */
  readonly offset: Tensor;
  /** Whether there is a dropout that draws from it: else forward passes need not be counted. */
  used = false;
  #passes = 0;
  #stream = 0;
  #held = false;

  /** Masks of a seed. */ constructor(device: Device, readonly seed: number) {
    this.offset = device.tensor([0], [1], { dtype: "i32" });
  }
  /** How many forward passes have begun. */
  get passes(): number {
    return this.#passes;
  }
  set passes(count: number) {
    this.#passes = count;
    this.offset.device.write(this.offset.storage, [count | 0]);
  }
  /** Begins a forward pass. */
  begin(): void {
    if (this.#held) return;
    this.passes++;
    this.#stream = 0;
  }
  /** Counts all passes that `body` begins as the one that has begun: a captured program brings one offset, whatever it runs. */
  hold<T>(body: () => T): T {
    this.#held = true;
    try {
      return body();
    } finally {
      this.#held = false;
    }
  }
  /** What the next dropout of this pass takes. */
  next(p: number): { p: number; seed: number; offset: Tensor; stream: number } {
    return { p, seed: this.seed, offset: this.offset, stream: this.#stream++ };
  }
}

/**
 * In training, zeroes each element with probability p and scales the others by 1/(1 − p), as `torch.nn.Dropout`; else the
 * identity.
 *
 * @see https://pytorch.org/docs/stable/generated/torch.nn.Dropout.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { Dropout, DropoutNoise } from "@nanogpt/ts/nn";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const noise = new DropoutNoise(device, 1337), dropout = new Dropout(0.5, noise), x = device.tensor([1, 2], [2]);
 * noise.begin();
 * assertEquals(dropout.forward(x).shape, [2]);
 * dropout.eval();
 * assertEquals(dropout.forward(x), x);
 * device.close();
 * ```
 */
export class Dropout extends Module {
  #noise: DropoutNoise;

  /**
   * A dropout of one place in a model.
   * @param p from 0 to 1
   * @param noise what the masks are drawn from, shared by all of a model's dropouts
   * @throws {ConfigError} when p is not from 0 to 1
   */
  constructor(readonly p: number, noise: DropoutNoise) {
    super();
    if (!(p >= 0 && p <= 1)) throw new ConfigError(`dropout is ${p}; expected a probability from 0 to 1`);
    this.#noise = noise;
    if (p > 0) noise.used = true;
  }
  /** Whether it does anything now. */
  get active(): boolean {
    return this.training && this.p > 0;
  }
  /** Options for an op that drops out by itself, such as attention. */
  next(): ReturnType<DropoutNoise["next"]> | undefined {
    return this.active ? this.#noise.next(this.p) : undefined;
  }
  /**
   * Drops elements in training; else gives x.
   * @param x f32, any shape
   * @returns the shape of x; x itself where nothing is dropped
   */
  forward(x: Tensor): Tensor {
    return this.active ? dropout(x, this.#noise.next(this.p)) : x;
  }
}
