/**
 * Generation of a text longer than the block size with `crop`, as in nanoGPT: a captured pass over the last tokens of
 * one row, the window, without a cache. Each replay of the pass appends the chosen token to the window on the device.
 */
import { recordFields } from "../../kernels/choose/record.ts";
import { place } from "../../kernels/copy/kernel.ts";
import { proceed } from "../../kernels/tokens/kernel.ts";
import { Storage } from "../engine/device.ts";
import type { GPT } from "../gpt.ts";
import { launch } from "../engine/launch.ts";
import { Captured } from "../nn/captured.ts";
import { slice } from "../ops/slice.ts";
import type { Tensor } from "../engine/tensor.ts";
import { type Choosing, type ChoosingRow, recordsOf, stateOf } from "./choosing.ts";

export class Windows implements Disposable {
  /** (1, block size) i32: the last tokens. */
  readonly #window: Tensor;
  /** (most, 1) i32: the chosen tokens, each at the index of its noise row. */
  readonly #history: Tensor;
  /**
   * Tensors of the current row. `first` (1) is its next noise row; `id` and `position` (1) are the last token and its
   * position.
   */
  readonly #of: Record<"first" | "id" | "position" | "records" | "state", Tensor>;
  readonly #pass: Captured<undefined>;

  constructor(readonly model: GPT, readonly choosing: Choosing, readonly forward: (ids: Tensor) => Tensor) {
    const { device, config: { blockSize } } = model, { most } = choosing.options;
    using scope = device.scope();
    this.#window = device.tensor(new Int32Array(blockSize), [1, blockSize]);
    this.#history = device.tensor(new Int32Array(most), [most, 1]);
    const [first, id, position] = [0, 0, 0].map(() => device.tensor(Int32Array.of(0)));
    const records = device.tensor(new Float32Array(recordFields.length), [1, recordFields.length]);
    this.#of = { first, id, position, records, state: device.tensor(new Int32Array(4), [1, 4]) };
    this.#pass = new Captured(model);
    scope.keepAll();
  }

  /**
   * Launches `steps` passes for a row; the first uses noise row `first`.
   *
   * @returns a function that reads the chosen ids
   */
  run(row: ChoosingRow, steps: number, first: number): () => Promise<(step: number) => number> {
    const { device, config: { blockSize } } = this.model;
    device.write(this.#window.storage, row.tokens.slice(-blockSize));
    device.write(this.#of.records.storage, recordsOf([row]));
    device.write(this.#of.state.storage, stateOf([row], first));
    device.write(this.#of.first.storage, [first]);
    for (let step = 0; step < steps; step++) {
      if (this.#pass.program) this.#pass.program.replay();
      else this.#pass.capture(device, () => this.#step());
    }
    const chosen = new Storage(this.#history.storage.block, steps, first);
    return async () => {
      const ids = await device.read(chosen);
      return (step) => ids[step];
    };
  }

  #step(): undefined {
    const { device, config: { blockSize } } = this.model, window = this.#window;
    using _ = device.scope();
    const { first, id: ids, position, ...operands } = this.#of;
    const chosen = this.choosing.choose(this.forward(window), operands); // (1, 1, V)
    const put = (x: Tensor, start: number) =>
      launch(place.i32, { x: x.alias([1, x.size, 1]), y: window.alias([1, blockSize, 1]) }, { start });
    if (blockSize > 1) put(slice(window, { axis: 1, start: 1 }), 0);
    put(chosen, blockSize - 1);
    launch(proceed, { chosen, ids, position, history: this.#history, first });
  }

  [Symbol.dispose](): void {
    this.#pass[Symbol.dispose]();
    for (const tensor of [this.#window, this.#history, ...Object.values(this.#of)]) tensor.dispose();
  }
}
