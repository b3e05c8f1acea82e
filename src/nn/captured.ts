/**
 * A program captured from a module. It is dropped when the module's fields have changed since the capture.
 */
import type { Device, Program } from "../engine/device.ts";
import { layout } from "../engine/storage.ts";
import { Tensor } from "../engine/tensor.ts";
import { isContainer, Module } from "./module.ts";

/**
 * Holds the captured program of one pass through a module.
 *
 * Before a replay one number is compared: `layout.changes`, which counts changes of any module in the process. Only if
 * it differs are the module's fields compared with the fields at the capture. They can still be equal: an evaluation
 * between two training steps changes the mode and changes it back.
 */
export class Captured<T extends Tensor | undefined> implements Disposable {
  #program: Program<T> | undefined;
  #changes = 0;
  #fields: readonly unknown[] = [];

  constructor(readonly module: Module) {}

  /** The program to replay; undefined if nothing has been captured yet, or the module has changed since. */
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
  /** Runs `body` and captures its launches as the new program; disposes of the old one. @returns what `body` returns */
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

/**
 * Everything that decides which kernels a module launches on which storages: its fields and, recursively, their fields.
 */
function* fields(value: unknown): Generator<unknown> {
  yield value;
  if (value instanceof Tensor) yield* [value.storage, value.requiresGrad];
  else if (value instanceof Module || isContainer(value)) {
    for (const item of Object.values(value)) yield* fields(item);
  }
}
