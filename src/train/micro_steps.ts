import { type Batch, batchAt, getBatch } from "../data/batch.ts";
import type { Tokens } from "../data/tokens.ts";
import type { Program } from "../engine/device.ts";
import { DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { Generator } from "../random/mod.ts";
import { Tensor } from "../engine/tensor.ts";

export interface MicroStepOptions {
  readonly batchSize: number;
  readonly gradientAccumulationSteps: number;
  /** Draws the batches. */
  readonly generator: Generator;
}

/**
 * Forward and backward passes over random batches of `data`, each drawn right after the forward pass before it. The first is
 * captured, the others replay it.
 */
export class MicroSteps implements Disposable {
  readonly #tokens: Tensor;
  readonly #targets: Tensor;
  /** The gradient of the mean of the micro-batches' losses: where backward begins. */
  readonly #share: Tensor;
  #batch: Batch | undefined;
  #program: Program<Tensor> | undefined;

  constructor(readonly model: GPT, readonly data: Tokens, readonly options: MicroStepOptions) {
    const { device, config: { blockSize } } = model, { batchSize, gradientAccumulationSteps } = options;
    this.#tokens = Tensor.empty(device, [batchSize, blockSize], "i32");
    this.#targets = Tensor.empty(device, [batchSize, blockSize], "i32");
    this.#share = device.tensor([1 / gradientAccumulationSteps], []);
  }

  /** Runs `body` with the memory of the steps, if there was one; what it makes has to be freed before the next. */
  lend<T>(body: () => T): T {
    return this.#program ? this.#program.lend(body) : body();
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

  /**
   * Adds to the parameters' gradients.
   *
   * @returns the loss, (): the same tensor each time
   * @throws {DataError} when a token is not of the model's vocabulary
   */
  run(): Tensor {
    this.prepare();
    const { device, noise, config: { vocabSize, dropout } } = this.model, { x, y } = this.#batch!;
    for (const [tensor, values] of [[this.#tokens, x], [this.#targets, y]] as const) {
      device.write(tensor.storage, values);
      const { least, greatest } = tensor.storage.block.bounds!;
      if (least >= 0 && greatest < vocabSize) continue;
      const wrong = least < 0 ? least : greatest;
      throw new DataError(`the data has token ${wrong}, and the vocabulary ends at ${vocabSize - 1}`);
    }
    if (this.#program) {
      if (dropout > 0) noise.begin();
      this.#program.replay();
    } else this.#program = device.capture(() => this.#forwardBackward());
    this.#batch = this.#draw();
    return this.#program.result;
  }

  #forwardBackward(): Tensor {
    using scope = this.model.device.scope();
    const { loss } = this.model.forward(this.#tokens, this.#targets);
    loss.backward(this.#share);
    return scope.keep(loss);
  }

  #draw(): Batch {
    const { batchSize, generator } = this.options, { blockSize } = this.model.config;
    return getBatch(this.data, { blockSize, batchSize, generator });
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#tokens, this.#targets, this.#share, this.#program?.result]) tensor?.dispose();
    this.#program?.dispose();
  }
}
