/** A program captured from a module, dropped when the module has changed in a way that the program does not know. */
import type { Device, Program } from "../engine/device.ts";
import { layout } from "../engine/storage.ts";
import { Tensor } from "../engine/tensor.ts";
import { isContainer, Module } from "./module.ts";

/**
 * Holds the program of one pass. A replay costs one comparison of numbers; only after a counted change anywhere in the process
 * (`layout.changes`) are the module's fields compared with those at the capture: evaluation between two training steps counts,
 * and leaves them equal.
 */
export class Captured<T extends Tensor | undefined> implements Disposable {
  #program: Program<T> | undefined;
  #changes = 0;
  #fields: readonly unknown[] = [];

  constructor(readonly module: Module) {}

  /** What to replay; undefined where nothing has been captured yet, or the module has changed since. */
  get program(): Program<T> | undefined {
    if (this.#program && this.#changes !== layout.changes) {
      const now = [...fields(this.module)];
      const same = !this.#program.outdated && now.length === this.#fields.length &&
        now.every((value, i) => value === this.#fields[i]);
      if (same) this.#changes = layout.changes;
      else this[Symbol.dispose]();
    }
    return this.#program;
  }
  /** Runs `body` and takes down its launches, in place of a program that is there. @returns what `body` returns */
  capture(device: Device, body: () => T): T {
    this[Symbol.dispose]();
    this.#program = device.capture(body);
    this.#changes = layout.changes;
    this.#fields = [...fields(this.module)];
    return this.#program.result;
  }
  /** Disposes of the program and of its result. */
  [Symbol.dispose](): void {
    this.#program?.dispose();
    this.#program?.result?.dispose();
    this.#program = undefined;
    this.#fields = [];
  }
}

/** All that decides what a module launches, and on which storages: its fields, and those of what stands in them. */
function* fields(value: unknown): Generator<unknown> {
  yield value;
  if (value instanceof Tensor) yield* [value.storage, value.requiresGrad];
  else if (value instanceof Module || isContainer(value)) {
    for (const item of Object.values(value)) yield* fields(item);
  }
}
