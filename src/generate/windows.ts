/**
 * Rows past the block size that show the model their last tokens for each new one, as nanoGPT: their tokens stand in rings on
 * the device, and a captured pass of one row, without a cache, reads them and appends what it chooses.
 */
import { recordFields } from "../../kernels/choose/record.ts";
import { append, latest } from "../../kernels/tokens/kernel.ts";
import { Storage } from "../engine/device.ts";
import type { GPT } from "../gpt.ts";
import { launch } from "../engine/launch.ts";
import { Captured } from "../nn/captured.ts";
import type { Tensor } from "../engine/tensor.ts";
import { type Choosing, type ChoosingRow, recordsOf, stateOf } from "./choosing.ts";

export class Windows implements Disposable {
  /** (slots, L) i32: token number n of a row lies at n mod L; and (slots), how many there are. */
  readonly #ring: Tensor;
  readonly #count: Tensor;
  /** Of the row that runs. */
  readonly #of: Record<"slot" | "records" | "state", Tensor>;
  readonly #pass: Captured<undefined>;
  /** How many tokens of which row are in each slot's ring. */
  readonly #held = new Map<number, { readonly row: ChoosingRow; readonly count: number }>();
  #last: ChoosingRow | undefined;

  /** @param options.most how many tokens may be appended between two readings */
  constructor(
    readonly model: GPT,
    { slots, most }: { slots: number; most: number },
    readonly choosing: Choosing,
    readonly forward: (ids: Tensor) => Tensor,
  ) {
    const { device, config: { blockSize } } = model, length = Math.max(blockSize, most);
    using scope = device.scope();
    this.#ring = device.tensor(new Int32Array(slots * length), [slots, length]);
    this.#count = device.tensor(new Int32Array(slots));
    const records = device.tensor(new Float32Array(recordFields.length), [1, recordFields.length]);
    this.#of = { slot: device.tensor(Int32Array.of(0)), records, state: device.tensor(new Int32Array(4), [1, 4]) };
    this.#pass = new Captured(model);
    scope.keepAll();
  }

  /** @returns what reads the ids that are chosen */
  run(row: ChoosingRow, steps: number, first: number): () => Promise<(step: number) => number> {
    const { device } = this.model, { slot, tokens } = row, length = this.#ring.shape[1], before = tokens.length;
    const held = this.#held.get(slot), ring = new Storage(this.#ring.storage.block, length, slot * length);
    if (held?.row !== row || held.count !== before) {
      const values = new Int32Array(length);
      for (let n = Math.max(0, before - length); n < before; n++) values[n % length] = tokens[n];
      device.write(ring, values);
      device.write(new Storage(this.#count.storage.block, 1, slot), [before]);
    }
    if (this.#last !== row) {
      device.write(this.#of.slot.storage, [slot]);
      device.write(this.#of.records.storage, recordsOf([row]));
    }
    device.write(this.#of.state.storage, stateOf([row], first));
    for (let step = 0; step < steps; step++) {
      if (this.#pass.program) this.#pass.program.replay();
      else this.#pass.capture(device, () => this.#step());
    }
    this.#last = row;
    this.#held.set(slot, { row, count: before + steps });
    return async () => {
      const ids = await device.read(ring);
      return (step) => ids[(before + step) % length];
    };
  }

  #step(): undefined {
    const { device, config: { blockSize } } = this.model, ring = this.#ring, count = this.#count;
    using _ = device.scope();
    const { slot, ...operands } = this.#of;
    const { ids } = launch(latest, { ring, count, slot, ids: device.empty([1, blockSize], { dtype: "i32" }) });
    const next = this.choosing.choose(this.forward(ids), operands); // (1, 1, V)
    launch(append, { ids: next, slot, ring, count });
  }

  [Symbol.dispose](): void {
    this.#pass[Symbol.dispose]();
    for (const tensor of [this.#ring, this.#count, ...Object.values(this.#of)]) tensor.dispose();
  }
}
