/**
 * A row past the block size shows the model its last tokens for each new one, as nanoGPT: a captured pass of one row, without a
 * cache, that moves its window on by itself.
 */
import { place } from "../../kernels/copy/kernel.ts";
import { proceed } from "../../kernels/tokens/kernel.ts";
import { Storage } from "../engine/device.ts";
import type { GPT } from "../gpt.ts";
import { launch } from "../engine/launch.ts";
import { Captured } from "../nn/captured.ts";
import { sample } from "../ops/sample.ts";
import { slice } from "../ops/slice.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { Passed, PassRow } from "./passes.ts";

export class Windows implements Disposable {
  /** (1, block size) i32. */
  readonly #window: Tensor;
  /** (most, 1) i32: what was chosen, by the number of its noise. */
  readonly #history: Tensor;
  /** Of the row that runs, (1) each; `first` is the number of its next noise. */
  readonly #of: Record<"temperature" | "topK" | "first" | "id" | "position", Tensor>;
  readonly #pass: Captured<Tensor>;

  /** @param noise (most, V) */
  constructor(readonly model: GPT, readonly noise: Tensor, readonly forward: (ids: Tensor) => Tensor) {
    const { device, config: { blockSize } } = model, [most] = noise.shape;
    using scope = device.scope();
    this.#window = device.tensor(new Int32Array(blockSize), [1, blockSize]);
    this.#history = device.tensor(new Int32Array(most), [most, 1]);
    const [topK, first, id, position] = [0, 0, 0, 0].map(() => device.tensor(Int32Array.of(0)));
    this.#of = { topK, first, id, position, temperature: device.tensor(Float32Array.of(0)) };
    this.#pass = new Captured(model);
    scope.keepAll();
  }

  run({ tokens, temperature, topK }: PassRow, steps: number, first: number): Passed {
    const { device, config: { blockSize } } = this.model;
    device.write(this.#window.storage, tokens.slice(-blockSize));
    const given = { temperature, topK, first };
    for (const name of ["temperature", "topK", "first"] as const) device.write(this.#of[name].storage, [given[name]]);
    for (let step = 0; step < steps; step++) {
      if (this.#pass.program) this.#pass.program.replay();
      else this.#pass.capture(device, () => this.#step());
    }
    const chosen = new Storage(this.#history.storage.block, steps, first);
    return {
      logits: this.#pass.program!.result,
      async ids() {
        const ids = await device.read(chosen);
        return (step) => ids[step];
      },
      [Symbol.dispose]() {},
    };
  }

  #step(): Tensor {
    const { device, config: { blockSize, vocabSize } } = this.model, window = this.#window;
    using scope = device.scope();
    const { temperature, topK, first, id: ids, position } = this.#of;
    const logits = this.forward(window); // (1, 1, V)
    const chosen = sample(logits.alias([1, vocabSize]), this.noise, { first, temperature, topK });
    const put = (x: Tensor, start: number) =>
      launch(place.i32, { x: x.alias([1, x.size, 1]), y: window.alias([1, blockSize, 1]) }, { start });
    if (blockSize > 1) put(slice(window, { axis: 1, start: 1 }), 0);
    put(chosen, blockSize - 1);
    launch(proceed, { chosen, ids, position, history: this.#history, first });
    return scope.keep(logits);
  }

  [Symbol.dispose](): void {
    this.#pass[Symbol.dispose]();
    for (const tensor of [this.#window, this.#history, ...Object.values(this.#of)]) tensor.dispose();
  }
}
