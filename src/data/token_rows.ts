/** Rows of tokens, and the lengths to which batches of them are padded. */
import { identify, type TokensIdentity } from "./tokens.ts";

/** One row of tokens. */
export interface TokenRow {
  /** The row's token ids. */ readonly ids: Int32Array;
  /**
   * 1 for each token that is learned, that is, predicted from the tokens before it in training; 0 for all other tokens.
   * As in TRL, the first token of a row may be marked, too, but it has no loss because no token comes before it.
   */
  readonly learned: Uint8Array;
}

/** Number of tokens of a row that have a loss: the marked tokens, without the first token of the row. */
export function labelCount({ learned }: TokenRow): number {
  let count = 0;
  for (let i = 1; i < learned.length; i++) count += learned[i];
  return count;
}

/** A list of {@linkcode TokenRow}s of any lengths, stored in two arrays: five bytes per token. */
export class TokenRows {
  #ids = new Int32Array(1 << 12);
  #learned = new Uint8Array(1 << 12);
  /** Position at which each row begins, and the end of the last row. */
  #places = [0];

  /** Number of rows. */ get length(): number {
    return this.#places.length - 1;
  }
  /** Total number of tokens. */ get tokens(): number {
    return this.#places.at(-1)!;
  }
  /** Adds a row at the end. */
  push({ ids, learned }: TokenRow): void {
    const begin = this.tokens, end = begin + ids.length;
    if (end > this.#ids.length) {
      const room = Math.max(end, 2 * this.#ids.length),
        moreIds = new Int32Array(room),
        moreLearned = new Uint8Array(room);
      moreIds.set(this.#ids);
      moreLearned.set(this.#learned);
      [this.#ids, this.#learned] = [moreIds, moreLearned];
    }
    this.#ids.set(ids, begin);
    this.#learned.set(learned, begin);
    this.#places.push(end);
  }

  /**
   * A row, as a view that is valid until the next {@linkcode push}.
   * @throws {RangeError} when there is no row of that number
   */
  row(index: number): TokenRow {
    const begin = this.#places[index], end = this.#places[index + 1];
    if (begin === undefined || end === undefined) throw new RangeError(`There is no row ${index} of ${this.length}`);
    return { ids: this.#ids.subarray(begin, end), learned: this.#learned.subarray(begin, end) };
  }

  /** The number of tokens, and a checksum of the ids and of which tokens are learned. */
  identity(): TokensIdentity {
    const subarray = (begin: number, end: number) =>
      this.#ids.subarray(begin, end).map((id, i) => this.#learned[begin + i] ? ~id : id);
    return identify({ length: this.tokens, subarray });
  }

  /** Number of tokens of a row. */
  lengthOf(index: number): number {
    return this.#places[index + 1] - this.#places[index];
  }
}

/**
 * The lengths to which batches are padded: `maxLength`, and about a half, a quarter and an eighth of it. There are only
 * a few lengths, because a training step is captured once for each length, and each captured step owns memory.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { paddedLength, paddedLengths } from "./token_rows.ts";
 *
 * assertEquals(paddedLengths(1024), [128, 256, 512, 1024]);
 * assertEquals(paddedLengths(100), [16, 32, 56, 100]); // the shorter lengths are multiples of 8, at least 16
 * assertEquals(paddedLength(33, paddedLengths(100)), 56);
 * ```
 *
 * @param maxLength length of the longest row, in tokens
 */
export function paddedLengths(maxLength: number): readonly number[] {
  const parts = [8, 4, 2].map((part) => Math.max(16, 8 * Math.ceil(maxLength / part / 8)));
  return [...new Set(parts.filter((length) => length < maxLength)), maxLength];
}

/** The smallest of `lengths` that is at least `tokens`. @throws {RangeError} when all lengths are smaller */
export function paddedLength(tokens: number, lengths: readonly number[]): number {
  const found = lengths.find((length) => length >= tokens);
  if (found === undefined) throw new RangeError(`A row of ${tokens} tokens does not fit into ${lengths.at(-1)}`);
  return found;
}
