import type { Device } from "../engine/device.ts";
import type { Tensor } from "../engine/tensor.ts";
import { DataError } from "../errors.ts";
import { Captured } from "../nn/captured.ts";
import type { Module } from "../nn/module.ts";
import type { BatchArray, MicroBatch } from "./task.ts";

/** A program for batches of the same names and shapes, and the tensors that it reads. */
export interface BatchPass {
  readonly tensors: Readonly<Record<string, Tensor>>;
  readonly captured: Captured<Tensor>;
}

export const typeOf = ({ values }: BatchArray): "i32" | "f32" => values instanceof Int32Array ? "i32" : "f32";

/** A pass for each set of names and shapes that batches have. */
export class BatchPasses implements Disposable {
  readonly #passes = new Map<string, BatchPass>();

  /** @param module what the passes go through: where it changes, they are captured anew */
  constructor(readonly module: Module, readonly device: Device) {}

  /** The pass that was made first. */
  get first(): BatchPass | undefined {
    return this.#passes.values().next().value;
  }

  /**
   * The pass for a batch, whose numbers stand in its tensors now.
   *
   * @throws {DataError} when an integer is outside its range
   */
  load(arrays: MicroBatch["arrays"]): BatchPass {
    const pass = this.#passFor(arrays);
    for (const [name, { values, range: [least, greatest] = [-Infinity, Infinity] }] of Object.entries(arrays)) {
      const { storage } = pass.tensors[name];
      this.device.write(storage, values);
      const { bounds } = storage.block; // of integers
      const wrong = bounds && [bounds.least, bounds.greatest].find((value) => value < least || value > greatest);
      if (wrong === undefined) continue;
      throw new DataError(`the data has ${wrong} among its ${name}, which are from ${least} to ${greatest}`);
    }
    return pass;
  }

  #passFor(arrays: MicroBatch["arrays"]): BatchPass {
    const key = Object.entries(arrays).map(([name, array]) => `${name} ${typeOf(array)} ${array.shape}`).join("; ");
    const there = this.#passes.get(key);
    if (there) return there;
    using scope = this.device.scope();
    const tensors: Record<string, Tensor> = {};
    for (const [name, array] of Object.entries(arrays)) {
      tensors[name] = this.device.empty(array.shape, { dtype: typeOf(array) });
    }
    scope.keepAll();
    const pass = { tensors, captured: new Captured<Tensor>(this.module) };
    this.#passes.set(key, pass);
    return pass;
  }

  [Symbol.dispose](): void {
    for (const { tensors, captured } of this.#passes.values()) {
      for (const tensor of Object.values(tensors)) tensor.dispose();
      captured[Symbol.dispose]();
    }
    this.#passes.clear();
  }
}
