/**
 * What the tasks have in common that train on rows, epoch by epoch. An update takes the next rows of the epoch's order, as many as
 * its micro-batches hold; an epoch's last update is smaller where the rows do not divide evenly. A micro-batch counts by its share
 * of what the loss is a mean over, rows or learned tokens, so that an update's gradient is that of all its rows at once.
 */
import { Epochs, type EpochsState } from "../data/epochs.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { Module } from "../nn/module.ts";
import { AdamW, type AdamWOptions, type NamedParameter } from "../optim/adamw.ts";
import type { DrawOptions, LossAndOutputs, MicroBatch, Task, TaskState } from "../train/task.ts";
import { layerGroups, type TransferRates } from "./transfer.ts";

/** To train on and to evaluate on. */
export interface Splits<T> {
  /** To train on. */ readonly train: T;
  /** To evaluate on. */ readonly val: T;
}

/** How rows are taken, and which rates layers have. */
export interface RowOptions extends TransferRates {
  /** Rows of a micro-batch. */ readonly batchSize: number;
  /** Of the order of the rows; default 1337. */ readonly seed?: number;
  /** Whether each epoch has an order of its own; default true. */ readonly shuffle?: boolean;
}

/** A task on rows. What rows are, and what is learned of them, its subclasses know. */
export abstract class RowTask implements Task {
  /** Rows do not depend on the weights. */ readonly ahead = true;
  /** What a run that goes on has to agree in. */ abstract readonly config: NonNullable<Task["config"]>;
  /** What is trained besides the model. */ readonly module?: Module;
  readonly #counts: Splits<number>;
  readonly #options: RowOptions;
  readonly #epochs: Epochs;
  /** Before the update that was drawn last: between two updates that is the one drawn ahead. */
  #before: EpochsState;

  /**
   * A task before its first update.
   * @param counts of the rows, 1 or more each
   */
  protected constructor(counts: Splits<number>, options: RowOptions) {
    const { seed = 1337, shuffle = true } = options;
    this.#counts = counts;
    this.#options = options;
    this.#epochs = new Epochs(counts.train, { seed, shuffle });
    this.#before = this.#epochs.state();
  }

  /** The tensors of some rows. @internal */
  protected abstract arrays(split: "train" | "val", numbers: readonly number[]): MicroBatch["arrays"];
  /** What rows count in the mean that the loss is. Default: one each. @internal */
  protected weigh(_split: "train" | "val", numbers: readonly number[]): number {
    return numbers.length;
  }
  /** See {@linkcode Task.loss}. */
  abstract loss(model: GPT, batch: Readonly<Record<string, Tensor>>): Tensor | LossAndOutputs;
  /** Of the rows of both splits. */
  abstract identity(): Splits<TokensIdentity> & Readonly<Record<string, TokensIdentity>>;

  /** Micro-batches in an epoch, or in an evaluation of all rows of a split. */
  microBatches(split: "train" | "val"): number {
    return Math.ceil(this.#counts[split] / this.#options.batchSize);
  }
  /** The micro-batches of the next update: `count`, or as many as the epoch has left. */
  *draw({ count }: Pick<DrawOptions, "count">): Generator<MicroBatch> {
    this.#before = this.#epochs.state();
    const drawn = this.#epochs.take(count * this.#options.batchSize), all = this.weigh("train", drawn);
    for (const { weight, arrays } of this.#batches("train", drawn)) yield { weight: weight! / all, arrays };
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

  /** AdamW over all that is trained, by layers where their rates differ. */
  configureOptimizers(model: GPT, options: AdamWOptions): AdamW {
    const added = [...this.module?.namedParameters({ trainable: true }) ?? []];
    const named = added.map(([name, one]): NamedParameter => [`task.${name}`, one]);
    return new AdamW(layerGroups(model, named, { ...this.#options, learningRate: options.learningRate }), options);
  }

  /** The name in state.json of how many rows there are. @internal */
  protected get countName(): string {
    return "rows";
  }
  /** The epoch and the place in it, before the update drawn ahead. */
  state(): TaskState {
    return { ...this.#before, [this.countName]: this.#counts.train };
  }
  /** Goes on in the middle of the epoch; with another number of rows, at its beginning. */
  restore({ epoch, place, ...state }: Readonly<Record<string, unknown>>, path: string): void {
    const rows = state[this.countName];
    if (!Number.isSafeInteger(rows)) {
      throw new CheckpointError(`${path} is damaged: ${this.countName} is ${rows}, expected a number`);
    }
    this.#epochs.restore({ epoch, place: rows === this.#counts.train ? place : 0 }, path);
    this.#before = this.#epochs.state();
  }
}
