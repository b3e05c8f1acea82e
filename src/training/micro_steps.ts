import { type Batch, batchAt, getBatch } from "../data/batch.ts";
import type { GPT } from "../gpt.ts";
import type { Generator } from "../random.ts";
import type { Tensor } from "../tensor.ts";

export interface MicroStepOptions {
  readonly batchSize: number;
  readonly gradientAccumulationSteps: number;
  /** Draws the batches. */
  readonly generator: Generator;
}

/** Forward and backward passes over random batches of `data`, each drawn right after the forward pass before it. */
export class MicroSteps implements Disposable {
  readonly #tokens: Tensor;
  readonly #targets: Tensor;
  /** The gradient of the mean of the micro-batches' losses: where backward begins. */
  readonly #share: Tensor;
  #batch: Batch | undefined;

  constructor(readonly model: GPT, readonly data: Int32Array, readonly options: MicroStepOptions) {
    const { device, config: { blockSize } } = model, { batchSize, gradientAccumulationSteps } = options;
    const ids = new Int32Array(batchSize * blockSize);
    this.#tokens = device.tensor(ids, [batchSize, blockSize], { dtype: "i32" });
    this.#targets = device.tensor(ids, [batchSize, blockSize], { dtype: "i32" });
    this.#share = device.tensor([1 / gradientAccumulationSteps], []);
  }

  /** Draws the first batch, if that is not done. @returns where in the data the blocks of the next batch begin */
  prepare(): number[] {
    this.#batch ??= this.#draw();
    return this.#batch.offsets;
  }
  /** Takes the batch at `offsets` next; one of another size, or outside a text that is shorter now, is drawn anew. */
  resume(offsets: number[]): void {
    const { blockSize } = this.model.config;
    const fits = offsets.length === this.options.batchSize &&
      offsets.every((offset) => offset + blockSize < this.data.length);
    this.#batch = fits ? batchAt(this.data, offsets, { blockSize }) : undefined;
  }

  /** Adds to the parameters' gradients. @returns the loss, (), which the caller frees */
  run(): Tensor {
    this.prepare();
    using scope = this.model.device.scope();
    const { device } = this.model, { x, y } = this.#batch!;
    device.write(this.#tokens.storage, x);
    device.write(this.#targets.storage, y);
    const { loss } = this.model.forward(this.#tokens, this.#targets);
    this.#batch = this.#draw();
    loss!.backward(this.#share);
    return scope.keep(loss!);
  }

  #draw(): Batch {
    const { batchSize, generator } = this.options, { blockSize } = this.model.config;
    return getBatch(this.data, { blockSize, batchSize, generator });
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#tokens, this.#targets, this.#share]) tensor.dispose();
  }
}
