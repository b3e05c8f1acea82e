import type { Device } from "../engine/device.ts";
import type { Tensor } from "../engine/tensor.ts";
import { DataError } from "../errors.ts";
import { Captured } from "../nn/captured.ts";
import type { Module } from "../nn/module.ts";
import type { BatchArray, MicroBatch } from "./task.ts";

/** A captured program for batches with equal names, dtypes and shapes, and the tensors that it reads. */
export interface BatchPass {
  readonly tensors: Readonly<Record<string, Tensor>>;
  readonly captured: Captured<Tensor>;
}

export const typeOf = ({ values }: BatchArray): "i32" | "f32" => values instanceof Int32Array ? "i32" : "f32";

/** One {@linkcode BatchPass} for each set of names, dtypes and shapes among the batches. */
export class BatchPasses implements Disposable {
  readonly #passes = new Map<string, BatchPass>();

  /** @param module the module that the passes run; when it changes, they are captured again */
  constructor(readonly module: Module, readonly device: Device) {}

  /** The pass that was created first. */
  get first(): BatchPass | undefined {
    return this.#passes.values().next().value;
  }

  /**
   * Writes a batch into the tensors of its pass, and returns the pass.
   *
   * @throws {DataError} when an integer is outside its range
   */
  load(arrays: MicroBatch["arrays"]): BatchPass {
    const pass = this.#passFor(arrays);
    for (const [name, { values, range: [least, greatest] = [-Infinity, Infinity] }] of Object.entries(arrays)) {
      const { storage } = pass.tensors[name];
      this.device.write(storage, values);
      const { bounds } = storage.block; // only integer storages have bounds
      const wrong = bounds && [bounds.least, bounds.greatest].find((value) => value < least || value > greatest);
      if (wrong === undefined) continue;
      throw new DataError(`the data has ${wrong} among its ${name}; expected ${least} to ${greatest}`);
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
