/**
 * Supervised tuning, as TRL's SFTTrainer: the model learns to write the learned tokens of each row, and sees all of them.
 *
 * The loss of an update is the sum of −log p over its learned tokens, divided by their number in all of its micro-batches: each
 * micro-batch's mean counts by its share of these tokens. An epoch goes through every row once; its last update is smaller where
 * the rows do not go into updates evenly. Rows are padded on the right to one of a few fixed lengths, so that captured steps are
 * replayed; what stands there is never a target, and no other token sees it.
 *
 * @see https://huggingface.co/docs/trl/sft_trainer
 */
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError, DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { DrawOptions, MicroBatch, Task, TaskState } from "../train/task.ts";
import { Epochs, paddedLengths, type TokenRows } from "./rows.ts";

/** How {@linkcode SupervisedTuning} makes batches. */
export interface SupervisedOptions {
  /** Rows in a micro-batch. */ readonly batchSize: number;
  /** Tokens of the longest row. */ readonly maxLength: number;
  /** Of the order of the rows; default 1337. */ readonly seed?: number;
  /** Whether each epoch has an order of its own; default true. */ readonly shuffle?: boolean;
}

/** The target of a token behind which nothing is learned. */
const NOTHING = -1;

/** Learns the learned tokens of rows. */
export class SupervisedTuning implements Task {
  readonly ahead = true;
  readonly config;
  readonly #epochs: Epochs;
  readonly #lengths: readonly number[];
  readonly #sizes: Record<"batch" | "vocabSize", number>;
  /** Before the update that was drawn last: between two updates that is the one drawn ahead. */
  #before: { readonly epoch: number; readonly place: number };

  /**
   * @param model that is to be tuned
   * @param rows to train on, and to evaluate on
   * @throws {DataError} when there are none to train on, or a row has nothing to learn or more than `maxLength` tokens
   */
  constructor(
    model: GPT,
    readonly rows: { readonly train: TokenRows; readonly val: TokenRows },
    { batchSize, maxLength, seed = 1337, shuffle = true }: SupervisedOptions,
  ) {
    if (rows.train.length === 0) throw new DataError("Supervised tuning: there are no rows to train on");
    this.config = { name: "supervised tuning", maxLength };
    this.#epochs = new Epochs(rows.train.length, { seed, shuffle });
    this.#lengths = paddedLengths(maxLength);
    this.#sizes = { batch: Math.min(batchSize, rows.train.length), vocabSize: model.config.vocabSize };
    this.#before = this.#epochs.state();
  }

  /** Updates in an epoch, of so many micro-batches each. */
  updatesPerEpoch(microBatches: number): number {
    return Math.ceil(this.rows.train.length / this.#sizes.batch / microBatches);
  }

  *draw({ count }: DrawOptions): Generator<MicroBatch> {
    const epochs = this.#epochs, { batch } = this.#sizes;
    this.#before = epochs.state();
    const drawn = Array.from({ length: Math.min(count * batch, epochs.left) }, () => epochs.next());
    const all = drawn.reduce((sum, row) => sum + learnedIn(this.rows.train, row), 0);
    yield* this.#batches(this.rows.train, drawn, (labels) => labels / all);
  }
  /** Batches in the order of the rows: the first of those to train on, and of the others. */
  *evaluate(split: "train" | "val", { count }: DrawOptions): Generator<MicroBatch> {
    const rows = this.rows[split], length = Math.min(count * this.#sizes.batch, rows.length);
    yield* this.#batches(rows, Array.from({ length }, (_, row) => row), (labels) => labels);
  }
  loss(model: GPT, { tokens, targets }: Readonly<Record<string, Tensor>>): Tensor {
    return model.forward(tokens, targets).loss;
  }
  state(): TaskState {
    return { ...this.#before, rows: this.rows.train.length };
  }
  /** Goes on in the middle of the epoch; on other rows, whose number differs, at its beginning. */
  restore({ epoch, place, rows }: Readonly<Record<string, unknown>>, path: string): void {
    const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
    if (!isCount(epoch) || !isCount(place) || !isCount(rows) || place >= rows) {
      throw new CheckpointError(`${path} is damaged: epoch, place or rows is missing or not what it should be`);
    }
    this.#epochs.restore({ epoch, place: rows === this.rows.train.length ? place : 0 });
    this.#before = this.#epochs.state();
  }

  *#batches(rows: TokenRows, drawn: readonly number[], weigh: (labels: number) => number): Generator<MicroBatch> {
    const { batch } = this.#sizes;
    for (let at = 0; at < drawn.length; at += batch) {
      const some = drawn.slice(at, at + batch), labels = some.reduce((sum, row) => sum + learnedIn(rows, row), 0);
      yield { weight: weigh(labels), arrays: this.#arrays(some.map((row) => rows.row(row))) };
    }
  }

  /** Always as many rows: a batch that has fewer ends with rows of nothing, for other shapes would be captured anew. */
  #arrays(rows: readonly ReturnType<TokenRows["row"]>[]): MicroBatch["arrays"] {
    const { batch, vocabSize } = this.#sizes, longest = Math.max(...rows.map(({ ids }) => ids.length));
    const T = this.#lengths.find((length) => length >= longest) ?? longest;
    const tokens = new Int32Array(batch * T), targets = new Int32Array(batch * T).fill(NOTHING);
    for (const [b, { ids, learned }] of rows.entries()) {
      tokens.set(ids, b * T);
      for (let t = 1; t < ids.length; t++) if (learned[t]) targets[b * T + t - 1] = ids[t];
    }
    const shape = [batch, T];
    return {
      tokens: { values: tokens, shape, range: [0, vocabSize - 1] },
      targets: { values: targets, shape, range: [NOTHING, vocabSize - 1] },
    };
  }
}

/** How many tokens of a row are targets: the first is none, for nothing comes before it. */
function learnedIn(rows: TokenRows, index: number): number {
  const { learned } = rows.row(index);
  let sum = 0;
  for (let t = 1; t < learned.length; t++) sum += learned[t];
  return sum;
}
