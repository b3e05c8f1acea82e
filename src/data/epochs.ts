/**
 * The order in which an epoch visits its rows, and the choice of rows to hold out for evaluation.
 *
 * As in Hugging Face's accelerate (`SeedableRandomSampler`, which the trainers of transformers and TRL use), the order
 * of an epoch is `torch.randperm` with a generator seeded with the seed plus the number of the epoch. So a run can be
 * resumed from two numbers: the epoch and the position in it.
 */
import { CheckpointError } from "../errors.ts";
import { RandomGenerator } from "../random/mod.ts";

/** The position in the sequence of rows, which a checkpoint stores. */
export interface EpochsState {
  /** Epoch of the next row, from 0. */ readonly epoch: number;
  /** Number of rows already taken in this epoch. */ readonly place: number;
}

/** An endless sequence of row numbers, in which each epoch has every row once. */
export class Epochs {
  readonly #seed: number;
  readonly #shuffle: boolean;
  #epoch = 0;
  #place = 0;
  #order: Int32Array | undefined;

  /**
   * Begins with the first epoch.
   *
   * @param length number of rows, at least 1
   * @param options.seed each epoch is shuffled with this seed plus the number of the epoch
   * @param options.shuffle false takes the rows in the order of the file. Default: true
   * @throws {RangeError} when `length` is not a positive integer
   */
  constructor(
    /** Number of rows. */ readonly length: number,
    { seed, shuffle = true }: { seed: number; shuffle?: boolean },
  ) {
    if (!(Number.isInteger(length) && length > 0)) {
      throw new RangeError(`Epochs: length=${length} is not valid; pass a positive number of rows`);
    }
    this.#seed = seed;
    this.#shuffle = shuffle;
  }

  /** Epoch of the next row, from 0, which is also the number of completed epochs. */ get epoch(): number {
    return this.#epoch;
  }

  /** The number of the next row. */
  next(): number {
    const index = this.#shuffle ? (this.#order ??= this.#draw())[this.#place] : this.#place;
    if (++this.#place === this.length) {
      this.#place = 0;
      this.#epoch++;
      this.#order = undefined;
    }
    return index;
  }

  /** The numbers of the next rows: `most` of them, or fewer at the end of an epoch, but at least one. */
  take(most: number): number[] {
    return Array.from({ length: Math.min(most, this.length - this.#place) }, () => this.next());
  }

  /** The current position. */ state(): EpochsState {
    return { epoch: this.#epoch, place: this.#place };
  }

  /**
   * Continues from a saved position. The number of rows and the seed must be the same as in the saved run.
   * @param state returned by {@linkcode Epochs.state | state()}
   * @param path file that the state comes from, for messages
   * @throws {CheckpointError} when `state` is not a position, or is beyond the last row
   */
  restore(state: unknown, path: string): void {
    const { epoch, place } = (state ?? {}) as Partial<EpochsState>;
    const isCount = (n: unknown): n is number => Number.isSafeInteger(n) && Number(n) >= 0;
    if (!isCount(epoch) || !isCount(place) || place >= this.length) {
      throw new CheckpointError(
        `${path} is damaged: expected an epoch and a place among ${this.length} rows, not ${JSON.stringify(state)}`,
      );
    }
    [this.#epoch, this.#place, this.#order] = [epoch, place, undefined];
  }

  #draw(): Int32Array {
    return new RandomGenerator(this.#seed + this.#epoch).randperm(this.length);
  }
}

/**
 * Divides rows into a training set and a held-out set. The held-out rows are the first `⌈share · length⌉` numbers of
 * `torch.randperm` with this seed; if `share` is above 0, at least one row and at most all except one. Both lists are
 * sorted.
 *
 * @param length number of rows
 * @param options.share fraction of the rows to hold out, from 0 (none) to below 1
 */
export function holdOut(
  length: number,
  { share, seed }: { share: number; seed: number },
): { train: Int32Array; held: Int32Array } {
  const count = share > 0 ? Math.min(length - 1, Math.ceil(share * length)) : 0;
  const order = new RandomGenerator(seed).randperm(length);
  return { train: order.subarray(count).slice().sort(), held: order.subarray(0, count).slice().sort() };
}
