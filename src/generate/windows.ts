/**
 * Rows past the block size that show the model their last tokens for each new one, as nanoGPT: their tokens stand in rings on
 * the device, and a captured pass of one row, without a cache, reads them and appends what it chooses.
 */
import { advance, append, latest } from "../../kernels/tokens/kernel.ts";
import { Storage } from "../engine/device.ts";
import type { GPT } from "../gpt.ts";
import { launch } from "../engine/launch.ts";
import { Captured } from "../nn/captured.ts";
import { sample } from "../ops/sample.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { Passed, PassRow } from "./passes.ts";

export class Windows implements Disposable {
  /** (slots, L) i32: token number n of a row lies at n mod L; and (slots), how many there are. */
  readonly #ring: Tensor;
  readonly #count: Tensor;
  /** Of the row that runs: (1) each; `first` is the number of its noise. */
  readonly #of: Record<"slot" | "temperature" | "topK" | "first", Tensor>;
  readonly #pass: Captured<Tensor>;
  /** How many tokens of which row are in each slot's ring. */
  readonly #held = new Map<number, { readonly row: PassRow; readonly count: number }>();
  #last: PassRow | undefined;

  /** @param options.most how many tokens may be appended between two readings */
  constructor(
    readonly model: GPT,
    { slots, most }: { slots: number; most: number },
    readonly noise: Tensor,
    readonly forward: (ids: Tensor) => Tensor,
  ) {
    const { device, config: { blockSize } } = model, length = Math.max(blockSize, most);
    using scope = device.scope();
    this.#ring = device.tensor(new Int32Array(slots * length), [slots, length]);
    this.#count = device.tensor(new Int32Array(slots));
    const [slot, topK, first] = [0, 0, 0].map(() => device.tensor(Int32Array.of(0)));
    this.#of = { slot, topK, first, temperature: device.tensor(Float32Array.of(0)) };
    this.#pass = new Captured(model);
    scope.keepAll();
  }

  run(row: PassRow, steps: number, first: number): Passed {
    const { device } = this.model, { slot, tokens } = row, length = this.#ring.shape[1], before = tokens.length;
    const held = this.#held.get(slot), ring = new Storage(this.#ring.storage.block, length, slot * length);
    if (held?.row !== row || held.count !== before) {
      const values = new Int32Array(length);
      for (let n = Math.max(0, before - length); n < before; n++) values[n % length] = tokens[n];
      device.write(ring, values);
      device.write(new Storage(this.#count.storage.block, 1, slot), [before]);
    }
    if (this.#last !== row) {
      for (const name of ["slot", "temperature", "topK"] as const) device.write(this.#of[name].storage, [row[name]]);
    }
    device.write(this.#of.first.storage, [first]);
    for (let step = 0; step < steps; step++) {
      if (this.#pass.program) this.#pass.program.replay();
      else this.#pass.capture(device, () => this.#step());
    }
    this.#last = row;
    this.#held.set(slot, { row, count: before + steps });
    return {
      logits: this.#pass.program!.result,
      async ids() {
        const ids = await device.read(ring);
        return (step) => ids[(before + step) % length];
      },
      [Symbol.dispose]() {},
    };
  }
  /** Says that the host has chosen another token for a row. */
  forget(slot: number): void {
    this.#held.delete(slot);
  }

  #step(): Tensor {
    const { device, config: { blockSize, vocabSize } } = this.model, ring = this.#ring, count = this.#count;
    using scope = device.scope();
    const { slot, temperature, topK, first } = this.#of;
    const { ids } = launch(latest, { ring, count, slot, ids: device.empty([1, blockSize], { dtype: "i32" }) });
    const logits = this.forward(ids); // (1, 1, V)
    const next = sample(logits.alias([1, vocabSize]), this.noise, { first, temperature, topK });
    launch(append, { ids: next, slot, ring, count });
    launch(advance, { counter: first }, { by: 1 });
    return scope.keep(logits);
  }

  [Symbol.dispose](): void {
    this.#pass[Symbol.dispose]();
    for (const tensor of [this.#ring, this.#count, ...Object.values(this.#of)]) tensor.dispose();
  }
}
