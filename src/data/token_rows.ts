/** Rows of tokens, and the lengths to which batches of them are padded. */
import { identify, type TokensIdentity } from "./tokens.ts";

/** One row. */
export interface TokenRow {
  /** The row's token ids. */ readonly ids: Int32Array;
  /**
   * Of each token, whether it is a label: 1 where the model is to predict it from those before it. As in TRL the first token of a
   * row may be marked too, though nothing stands before it.
   */
  readonly learned: Uint8Array;
}

/** How many tokens of a row have a loss: those that are marked, without the first. */
export function labelCount({ learned }: TokenRow): number {
  let count = 0;
  for (let i = 1; i < learned.length; i++) count += learned[i];
  return count;
}

/** Many {@linkcode TokenRow}s of any lengths, side by side in two arrays: five bytes a token. */
export class TokenRows {
  #ids = new Int32Array(1 << 12);
  #learned = new Uint8Array(1 << 12);
  /** Where each row begins, and where the last ends. */
  #places = [0];

  /** How many rows there are. */ get length(): number {
    return this.#places.length - 1;
  }
  /** How many tokens there are in all. */ get tokens(): number {
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

  /** A row, which is a view: it holds until the next {@linkcode push}. @throws {RangeError} when there is none of that number */
  row(index: number): TokenRow {
    const begin = this.#places[index], end = this.#places[index + 1];
    if (begin === undefined || end === undefined) throw new RangeError(`There is no row ${index} of ${this.length}`);
    return { ids: this.#ids.subarray(begin, end), learned: this.#learned.subarray(begin, end) };
  }

  /** What tells these rows from others: how many tokens there are, and a checksum of their ids and of which are learned. */
  identity(): TokensIdentity {
    const subarray = (begin: number, end: number) =>
      this.#ids.subarray(begin, end).map((id, i) => this.#learned[begin + i] ? ~id : id);
    return identify({ length: this.tokens, subarray });
  }

  /** How many tokens a row has. */
  lengthOf(index: number): number {
    return this.#places[index + 1] - this.#places[index];
  }
}

/**
 * The lengths that batches are padded to: the longest, its half, quarter and eighth. A training step is captured once for each, and
 * a captured step owns its memory, so there are few of them.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { paddedLength, paddedLengths } from "./token_rows.ts";
 *
 * assertEquals(paddedLengths(1024), [128, 256, 512, 1024]);
 * assertEquals(paddedLengths(100), [16, 32, 56, 100]); // multiples of 8 but for the last, and 16 or more
 * assertEquals(paddedLength(33, paddedLengths(100)), 56);
 * ```
 *
 * @param maxLength of a row, in tokens
 */
export function paddedLengths(maxLength: number): readonly number[] {
  const parts = [8, 4, 2].map((part) => Math.max(16, 8 * Math.ceil(maxLength / part / 8)));
  return [...new Set(parts.filter((length) => length < maxLength)), maxLength];
}

/** The least of the lengths that holds so many tokens. @throws {RangeError} when none does */
export function paddedLength(tokens: number, lengths: readonly number[]): number {
  const found = lengths.find((length) => length >= tokens);
  if (found === undefined) throw new RangeError(`A row of ${tokens} tokens does not fit into ${lengths.at(-1)}`);
  return found;
}
