/** Language modelling, nanoGPT's task: predict each next token in random blocks of a text. */
import { type Batch, batchAt, getBatch } from "../data/batch.ts";
import type { TokenSplits } from "../data/split.ts";
import { identify, type TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { DrawOptions, MicroBatch, Task, TaskState } from "./task.ts";

/** Predicts each next token in random blocks of a text, drawn as in nanoGPT's get_batch. */
export class LanguageModelling implements Task {
  readonly ahead = true;
  readonly #sizes: { readonly batchSize: number; readonly blockSize: number };
  readonly #vocabSize: number;
  /** Offsets of the latest micro-batch's blocks in the text. Between updates it is the micro-batch drawn ahead. */
  #offsets: number[] = [];
  /** The batch drawn ahead when a checkpoint was saved; it is returned by the next draw. */
  #restored: Batch | undefined;

  /** Draws micro-batches of `batchSize` blocks of `blockSize` tokens from `data`. */
  constructor({ config }: GPT, readonly data: TokenSplits, { batchSize }: { readonly batchSize: number }) {
    this.#sizes = { batchSize, blockSize: config.blockSize };
    this.#vocabSize = config.vocabSize;
  }

  *draw({ count, generator }: DrawOptions): Generator<MicroBatch> {
    for (let i = 0; i < count; i++) {
      const batch = this.#restored ?? getBatch(this.data.train, { ...this.#sizes, generator });
      this.#restored = undefined;
      this.#offsets = batch.offsets;
      yield this.#arrays(batch);
    }
  }
  *evaluate(split: "train" | "val", { count, generator }: DrawOptions): Generator<MicroBatch> {
    for (let i = 0; i < count; i++) yield this.#arrays(getBatch(this.data[split], { ...this.#sizes, generator }));
  }
  loss(model: GPT, { tokens, targets }: Readonly<Record<string, Tensor>>): Tensor {
    return model.forward(tokens, targets).loss;
  }

  identity(): Record<keyof TokenSplits, TokensIdentity> {
    return { train: identify(this.data.train), val: identify(this.data.val) };
  }
  state(): TaskState {
    return { offsets: this.#offsets };
  }
  /** Makes the batch at these offsets the next one, unless the batch size changed or the text is too short for them. */
  restore({ offsets }: Readonly<Record<string, unknown>>, path: string): void {
    const isOffset = (offset: unknown): offset is number => Number.isSafeInteger(offset) && (offset as number) >= 0;
    if (!Array.isArray(offsets) || !offsets.every(isOffset)) {
      throw new CheckpointError(`${path} is damaged: offsets is missing or not a list of whole numbers`);
    }
    const { batchSize, blockSize } = this.#sizes, { train } = this.data;
    const fits = offsets.length === batchSize && offsets.every((offset) => offset + blockSize < train.length);
    this.#restored = fits ? batchAt(train, offsets, this.#sizes) : undefined;
    this.#offsets = fits ? offsets : [];
  }

  #arrays({ x, y }: Batch): MicroBatch {
    const { batchSize, blockSize } = this.#sizes;
    const like = { shape: [batchSize, blockSize], range: [0, this.#vocabSize - 1] } as const;
    return { arrays: { tokens: { values: x, ...like }, targets: { values: y, ...like } } };
  }
}
