import type { Device } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { dropout } from "../ops/dropout.ts";
import type { Tensor } from "../engine/tensor.ts";
import { Module } from "./module.ts";

/**
 * The random numbers of a model's dropout: Philox4x32-10 with one seed.
 *
 * Philox computes a number from its seed, offset and stream. The offset counts the forward passes; the stream counts
 * the dropouts within a pass. Backward can therefore compute a mask again instead of storing it, and a resumed training
 * needs only {@linkcode passes} to go on with the same bits.
 */
export class DropoutNoise {
  /** i32 (1): the number of forward passes, on the device, where captured programs read it. */
  readonly offset: Tensor;
  /** Whether any dropout has p > 0; if not, forward passes need not be counted. */
  used = false;
  #passes = 0;
  #stream = 0;
  #held = false;

  /** Starts at forward pass 0. */ constructor(device: Device, readonly seed: number) {
    this.offset = device.tensor([0], [1], { dtype: "i32" });
  }
  /** Number of forward passes begun so far. */
  get passes(): number {
    return this.#passes;
  }
  set passes(count: number) {
    this.#passes = count;
    this.offset.device.write(this.offset.storage, [count | 0]);
  }
  /** Starts a forward pass: new masks. */
  begin(): void {
    if (this.#held) return;
    this.passes++;
    this.#stream = 0;
  }
  /**
   * Runs `body` without counting the forward passes in it. Used while a program is captured: a replay sets one offset
   * for the whole program, however many passes it has.
   */
  hold<T>(body: () => T): T {
    this.#held = true;
    try {
      return body();
    } finally {
      this.#held = false;
    }
  }
  /** Arguments for the op of this pass's next dropout. */
  next(p: number): { p: number; seed: number; offset: Tensor; stream: number } {
    return { p, seed: this.seed, offset: this.offset, stream: this.#stream++ };
  }
}

/**
 * In training, zeroes each element with probability p and scales the remaining ones by 1/(1 − p); in evaluation,
 * returns its input. Like `torch.nn.Dropout`.
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
   * Makes one dropout layer.
   * @param p probability, from 0 to 1
   * @param noise the source of the masks, shared by all dropouts of a model
   * @throws {ConfigError} when p is not from 0 to 1
   */
  constructor(readonly p: number, noise: DropoutNoise) {
    super();
    if (!(p >= 0 && p <= 1)) throw new ConfigError(`dropout is ${p}; expected a probability from 0 to 1`);
    this.#noise = noise;
    if (p > 0) noise.used = true;
  }
  /** Whether the layer drops anything: in training, with p > 0. */
  get active(): boolean {
    return this.training && this.p > 0;
  }
  /** Options for an op that applies dropout itself, such as attention; undefined if nothing is dropped. */
  next(): ReturnType<DropoutNoise["next"]> | undefined {
    return this.active ? this.#noise.next(this.p) : undefined;
  }
  /**
   * Drops elements in training; returns x in evaluation.
   * @param x f32, any shape
   * @returns the shape of x; x itself if nothing is dropped
   */
  forward(x: Tensor): Tensor {
    return this.active ? dropout(x, this.#noise.next(this.p)) : x;
  }
}
