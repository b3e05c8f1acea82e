/** The order in which epochs go through rows, and the lengths that batches are padded to. */
import { RandomGenerator } from "../random/mod.ts";

/** Where a pass over the rows stands. */
export interface EpochState {
  /** Counted from 0. */ readonly epoch: number;
  /** Rows of it that were given. */ readonly place: number;
}

/** Goes through rows again and again, in an order that seed and epoch decide. */
export class Epochs {
  #epoch = 0;
  #place = 0;
  #order: Int32Array | undefined;

  constructor(
    readonly length: number,
    readonly options: { readonly seed: number; readonly shuffle: boolean },
  ) {}

  get epoch(): number {
    return this.#epoch;
  }
  /** Rows of this epoch that are left. */
  get left(): number {
    return this.length - this.#place;
  }
  next(): number {
    const order = this.#order ??= this.#permutation(), row = order[this.#place++];
    if (this.#place === this.length) {
      this.#place = 0;
      this.#epoch++;
      this.#order = undefined;
    }
    return row;
  }
  state(): EpochState {
    return { epoch: this.#epoch, place: this.#place };
  }
  restore({ epoch, place }: EpochState): void {
    [this.#epoch, this.#place, this.#order] = [epoch, place, undefined];
  }

  #permutation(): Int32Array {
    const order = Int32Array.from({ length: this.length }, (_, i) => i);
    if (!this.options.shuffle) return order;
    const generator = new RandomGenerator((this.options.seed + this.#epoch) >>> 0);
    for (let i = 0; i < order.length - 1; i++) {
      const other = i + generator.randint(order.length - i);
      [order[i], order[other]] = [order[other], order[i]];
    }
    return order;
  }
}

/** The lengths that batches of rows of at most `maxLength` tokens are padded to: powers of two from 32, and `maxLength`. */
export function paddedLengths(maxLength: number): readonly number[] {
  const lengths: number[] = [];
  for (let length = 32; length < maxLength; length *= 2) lengths.push(length);
  return [...lengths, maxLength];
}
