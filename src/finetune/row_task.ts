/**
 * Base class of the tasks that train on rows, epoch by epoch. An update takes the next rows in the epoch's order, as
 * many as its micro-batches hold; the last update of an epoch is smaller if the rows do not divide evenly. A
 * micro-batch is weighted by its share of the items that the loss averages over (rows or learned tokens), so an update
 * has the gradient of all its rows at once.
 */
import { Epochs, type EpochsState } from "../data/epochs.ts";
import { labelCount, type TokenRows } from "../data/token_rows.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError, DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { Module } from "../nn/module.ts";
import { AdamW, type AdamWOptions, type NamedParameter } from "../optim/adamw.ts";
import type { DrawOptions, LossAndOutputs, Measures, MicroBatch, Task, TaskState } from "../train/task.ts";
import { layerGroups, type TransferRates } from "./transfer.ts";

/** A value for each of the two splits of the data. */
export interface Splits<T> {
  /** For training. */ readonly train: T;
  /** For evaluation. */ readonly val: T;
}

/** How rows are drawn, and the learning rates of layers. */
export interface RowOptions extends TransferRates {
  /** Rows in a micro-batch. */ readonly batchSize: number;
  /** Seed for the order of the rows. Default: 1337. */ readonly seed?: number;
  /** Whether rows are shuffled, differently in each epoch. Default: true. */ readonly shuffle?: boolean;
}

/** A task on rows. Subclasses define what a row is and what is learned from it. */
export abstract class RowTask implements Task {
  /** True: the next update's batches can be drawn ahead, because rows do not depend on the weights. */ readonly ahead =
    true;
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */
  abstract readonly config: NonNullable<Task["config"]>;
  /** Parameters besides the model's, such as a head. */ readonly module?: Module;
  readonly #counts: Splits<number>;
  readonly #options: RowOptions;
  readonly #epochs: Epochs;
  /** Tokens drawn so far, without padding. */
  #tokens = 0;
  /** The state before the latest draw. Between two updates, the latest draw is the one for the next update. */
  #before: EpochsState & { readonly tokens: number };

  /**
   * Creates the task.
   * @param counts the number of rows in each split, at least 1
   */
  protected constructor(counts: Splits<number>, options: RowOptions) {
    const { seed = 1337, shuffle = true } = options;
    this.#counts = counts;
    this.#options = options;
    this.#epochs = new Epochs(counts.train, { seed, shuffle });
    this.#before = this.#position();
  }

  /** The arrays of a micro-batch of rows. @internal */
  protected abstract arrays(split: "train" | "val", numbers: readonly number[]): MicroBatch["arrays"];
  /** The number of tokens in a row to train on, without padding. @internal */
  protected abstract tokensOf(row: number): number;
  /** The weight of a micro-batch of rows in the mean loss. Default: 1 for each row. @internal */
  protected weigh(_split: "train" | "val", numbers: readonly number[]): number {
    return numbers.length;
  }
  /** See {@linkcode Task.loss}. */
  abstract loss(model: GPT, batch: Readonly<Record<string, Tensor>>): Tensor | LossAndOutputs;
  /** Checksums of the rows of both splits. */
  abstract identity(): Splits<TokensIdentity> & Readonly<Record<string, TokensIdentity>>;

  /** The number of micro-batches in an epoch, or in an evaluation of all rows of a split. */
  microBatches(split: "train" | "val"): number {
    return Math.ceil(this.#counts[split] / this.#options.batchSize);
  }
  /** Draws the micro-batches of the next update: `count`, or the rest of the epoch if it has fewer. */
  *draw({ count }: Pick<DrawOptions, "count">): Generator<MicroBatch> {
    this.#before = this.#position();
    const drawn = this.#epochs.take(count * this.#options.batchSize), all = this.weigh("train", drawn);
    this.#tokens = drawn.reduce((sum, row) => sum + this.tokensOf(row), this.#tokens);
    for (const { weight, arrays } of this.#batches("train", drawn)) yield { weight: weight! / all, arrays };
  }
  /** TRL's `num_tokens`: the tokens trained on so far, without padding. */
  drawn(): Measures {
    return { num_tokens: this.#tokens };
  }
  /** The first `count` micro-batches of a split, in the order of its rows. */
  evaluate(split: "train" | "val", { count }: Pick<DrawOptions, "count">): Iterable<MicroBatch> {
    const length = Math.min(count * this.#options.batchSize, this.#counts[split]);
    return this.#batches(split, Array.from({ length }, (_, row) => row));
  }
  *#batches(split: "train" | "val", rows: readonly number[]): Generator<MicroBatch> {
    const { batchSize } = this.#options;
    for (let at = 0; at < rows.length; at += batchSize) {
      const numbers = rows.slice(at, at + batchSize);
      yield { weight: this.weigh(split, numbers), arrays: this.arrays(split, numbers) };
    }
  }

  /**
   * Makes every update and every evaluation draw the same batches, to estimate memory. Default: all rows to evaluate on.
   * @internal
   */
  protected rehearse(batches: readonly MicroBatch[] = this.#allRows()): this {
    return Object.assign(this, { draw: () => batches, evaluate: () => batches });
  }
  #allRows(): MicroBatch[] {
    const count = this.microBatches("val");
    return Array.from(this.evaluate("val", { count }), ({ arrays }) => ({ arrays, weight: 1 / count }));
  }

  /** Creates AdamW over all trainable parameters, with one group per layer if their learning rates differ. */
  configureOptimizers(model: GPT, options: AdamWOptions): AdamW {
    const added = [...this.module?.namedParameters({ trainable: true }) ?? []];
    const named = added.map(([name, one]): NamedParameter => [`task.${name}`, one]);
    return new AdamW(layerGroups(model, named, { ...this.#options, learningRate: options.learningRate }), options);
  }

  /** The field of state.json that stores the number of rows. @internal */
  protected get countName(): string {
    return "rows";
  }
  #position() {
    return { ...this.#epochs.state(), tokens: this.#tokens };
  }
  /** The epoch, the position in it, and the tokens drawn so far, without the draw for the next update. */
  state(): TaskState {
    return { ...this.#before, [this.countName]: this.#counts.train };
  }
  /** Continues at the saved position, or at the beginning of the saved epoch if the number of rows has changed. */
  restore({ epoch, place, tokens, ...state }: Readonly<Record<string, unknown>>, path: string): void {
    const rows = state[this.countName];
    for (const [name, value] of [[this.countName, rows], ["tokens", tokens]]) {
      if (Number.isSafeInteger(value)) continue;
      throw new CheckpointError(`${path} is damaged: ${name} is ${value}, expected a number`);
    }
    this.#epochs.restore({ epoch, place: rows === this.#counts.train ? place : 0 }, path);
    this.#tokens = Number(tokens);
    this.#before = this.#position();
  }
}

/**
 * @internal Checks rows of tokens.
 * @throws {DataError} when a split has no rows, or a row has too many tokens or no learned token after its first
 */
export function checkRows(task: string, rows: Splits<TokenRows>, maxLength: number): void {
  for (const [name, some] of Object.entries(rows)) {
    if (some.length === 0) throw new DataError(`${task}: ${name} has no rows`);
    for (let i = 0; i < some.length; i++) {
      const labels = labelCount(some.row(i)), length = some.lengthOf(i);
      if (labels > 0 && length <= maxLength) continue;
      const what = labels > 0 ? `${length} tokens, expected at most ${maxLength}` : "no token that is learned";
      throw new DataError(`${task}: row ${i} of ${name} has ${what}`);
    }
  }
}
