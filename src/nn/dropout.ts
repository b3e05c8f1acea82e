import type { Device } from "../device/device.ts";
import { ConfigError } from "../errors.ts";
import { dropout } from "../ops/dropout.ts";
import type { Tensor } from "../tensor.ts";
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
  #passes = 0;
  #stream = 0;

  constructor(device: Device, readonly seed: number) {
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
    this.passes++;
    this.#stream = 0;
  }
  /** What the next dropout of this pass takes. */
  next(p: number): { p: number; seed: number; offset: Tensor; stream: number } {
    return { p, seed: this.seed, offset: this.offset, stream: this.#stream++ };
  }
}

/** In training, zeroes each element with probability p and scales the others by 1/(1 − p); else the identity. */
export class Dropout extends Module {
  #noise: DropoutNoise;

  /** @throws {ConfigError} when p is not from 0 to 1 */
  constructor(readonly p: number, noise: DropoutNoise) {
    super();
    if (!(p >= 0 && p <= 1)) throw new ConfigError(`dropout is ${p}; expected a probability from 0 to 1`);
    this.#noise = noise;
  }
  /** Whether it does anything now. */
  get active(): boolean {
    return this.training && this.p > 0;
  }
  /** Options for an op that drops out by itself, such as attention. */
  next(): ReturnType<DropoutNoise["next"]> | undefined {
    return this.active ? this.#noise.next(this.p) : undefined;
  }
  forward(x: Tensor): Tensor {
    return this.active ? dropout(x, this.#noise.next(this.p)) : x;
  }
}
