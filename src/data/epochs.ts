/**
 * The order in which rows are taken, epoch by epoch, and the rows that are held out.
 *
 * As in Hugging Face's accelerate (`SeedableRandomSampler`, which transformers' and TRL's trainers use), the order of an epoch is
 * `torch.randperm` of a generator that is seeded with the seed plus the epoch's number; so a run is resumed from two numbers.
 */
import { CheckpointError } from "../errors.ts";
import { RandomGenerator } from "../random/mod.ts";

/** Where an order stands, for a checkpoint. */
export interface EpochsState {
  /** The epoch of the next row, from 0. */ readonly epoch: number;
  /** How many of its rows were taken. */ readonly place: number;
}

/** Row numbers without end: each epoch has every row once. */
export class Epochs {
  readonly #seed: number;
  readonly #shuffle: boolean;
  #epoch = 0;
  #place = 0;
  #order: Int32Array | undefined;

  /**
   * The orders of one seed, from the first epoch on.
   *
   * @param length how many rows there are, 1 or more
   * @param options.seed of the orders; the seed of an epoch is this plus its number
   * @param options.shuffle false takes the rows as they stand; default true
   */
  constructor(
    /** How many rows there are. */ readonly length: number,
    { seed, shuffle = true }: { seed: number; shuffle?: boolean },
  ) {
    if (!(Number.isInteger(length) && length > 0)) throw new RangeError(`Epochs need one row or more, not ${length}`);
    this.#seed = seed;
    this.#shuffle = shuffle;
  }

  /** The epoch of the next row, from 0: how many are complete. */ get epoch(): number {
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

  /** The numbers of the next rows: `most`, or as many as the epoch has left, one or more. */
  take(most: number): number[] {
    return Array.from({ length: Math.min(most, this.length - this.#place) }, () => this.next());
  }

  /** Where it stands. */ state(): EpochsState {
    return { epoch: this.#epoch, place: this.#place };
  }

  /**
   * Goes on from where {@linkcode state} was called, with the same rows and seed.
   * @param path of the file that the state comes from, for the message
   * @throws {CheckpointError} when it is not such a state, or is one of fewer rows
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
 * Divides rows into those to train on and those to judge by: of `torch.randperm` with this seed the first `⌈share · length⌉` are
 * held out, at least one and not all. Both lists are in the rows' order.
 *
 * @param length how many rows there are
 * @param options.share from 0, which holds none out, to below 1
 */
export function holdOut(
  length: number,
  { share, seed }: { share: number; seed: number },
): { train: Int32Array; held: Int32Array } {
  const count = share > 0 ? Math.min(length - 1, Math.ceil(share * length)) : 0;
  const order = new RandomGenerator(seed).randperm(length);
  return { train: order.subarray(count).slice().sort(), held: order.subarray(0, count).slice().sort() };
}
