/** Rows of token sequences with labels, stored as typed arrays, and batches of rows, padded to a few fixed lengths. */
import { identify as identifyTokens, type TokensIdentity } from "../data/tokens.ts";
import { paddedLength, TokenRows } from "../data/token_rows.ts";
import { DataError } from "../errors.ts";
import type { BatchArray, MicroBatch } from "../train/task.ts";
import type { Label } from "../data/examples.ts";
import { type LabelAt, type Labelling, labelNumbers } from "./labels.ts";

/** Rows with labels. Each row has one or more token sequences. */
export class HeadRows {
  readonly #sequences = new TokenRows();
  /** The index of each row's first sequence; the last element is the number of sequences. */
  readonly #rows = [0];
  readonly #labels: LabelAt[] = [];

  /** Adds a row. */
  add(
    sequences: readonly ArrayLike<number>[],
    { where, label }: { readonly where: string; readonly label: Label },
  ): void {
    for (const ids of sequences) {
      this.#sequences.push({ ids: Int32Array.from(ids), learned: new Uint8Array(ids.length) });
    }
    this.#rows.push(this.#sequences.length);
    this.#labels.push({ where, label });
  }
  /** How many rows there are. */ get length(): number {
    return this.#labels.length;
  }
  /** The rows' labels. */ get labels(): readonly LabelAt[] {
    return this.#labels;
  }
  /** The ids of a row's sequences. They are views, valid until the next {@linkcode add}. */
  sequences(row: number): Int32Array[] {
    const first = this.first(row), length = this.first(row + 1) - first;
    return Array.from({ length }, (_, i) => this.#sequences.row(first + i).ids);
  }
  /** The number of tokens in all sequences of a row. */
  tokens(row: number): number {
    return this.sequences(row).reduce((sum, { length }) => sum + length, 0);
  }
  /** The index of a row's first sequence among the sequences of all rows. `first(length)` is their number. */
  first(row: number): number {
    return this.#rows[row];
  }
  /** The number of tokens in the longest sequence. */ get longest(): number {
    let most = 0;
    for (let i = 0; i < this.#sequences.length; i++) most = Math.max(most, this.#sequences.lengthOf(i));
    return most;
  }
  /** The maximum number of sequences in a row. */ get choices(): number {
    return this.#labels.reduce((most, _, row) => Math.max(most, this.#rows[row + 1] - this.#rows[row]), 0);
  }
}

/** Computes a checksum of rows: of their tokens, the lengths of their sequences, and their labels. */
export function identify(rows: HeadRows): TokensIdentity {
  const all: number[] = [];
  for (let row = 0; row < rows.length; row++) {
    for (const ids of rows.sequences(row)) all.push(ids.length, ...ids);
    for (const letter of JSON.stringify(rows.labels[row].label)) all.push(letter.codePointAt(0)!);
  }
  return identifyTokens(Int32Array.from(all));
}

/** The index of the last token that is not padding; −1 if there is none. */
export function lastToken(ids: ArrayLike<number>, padTokenId?: number): number {
  let last = ids.length - 1;
  while (last >= 0 && ids[last] === padTokenId) last--;
  return last;
}

/** Options of {@linkcode headBatch}. */
export interface BatchOptions {
  /** The lengths that batches can be padded to, in ascending order. */ readonly lengths: readonly number[];
  /** Sequences per row. Rows with fewer sequences are filled up, and the additional ones are masked. */ readonly choices:
    number;
  /** Entries in the model's vocabulary. */ readonly vocabSize: number;
  /**
   * The padding token, which is never pooled. Default: rows are padded with 0, and the last token before the padding is
   * pooled.
   */
  readonly padTokenId?: number;
  /** Whether to add targets for the loss of the next tokens. */ readonly nextTokens?: boolean;
}

/**
 * The arrays of a batch of B rows with K sequences each, R = B · K: `tokens` (R, T); `at` (R), the index of each
 * sequence's pooled token among all R · T tokens; for K > 1 `mask` (B, K), see {@linkcode choiceMask}; and with
 * `nextTokens` the inputs of `nextTokensLoss`.
 *
 * @throws {DataError} when a row consists of padding
 */
export function headBatch(
  rows: HeadRows,
  numbers: readonly number[],
  { lengths, choices, vocabSize, padTokenId, nextTokens }: BatchOptions,
): MicroBatch["arrays"] {
  const all = numbers.map((row) => rows.sequences(row)), R = numbers.length * choices;
  const longest = Math.max(...all.flat().map(({ length }) => length)), T = paddedLength(longest, lengths);
  const tokens = new Int32Array(R * T).fill(padTokenId ?? 0), at = new Int32Array(R);
  const next = nextTokens && {
    targets: new Int32Array(R * T),
    counted: new Float32Array(R * T),
    divisors: new Float32Array(R).fill(1),
  };
  const sequences = all.flat().length;
  for (const [i, row] of all.entries()) {
    for (const [k, ids] of row.entries()) {
      const r = i * choices + k, begin = r * T;
      tokens.set(ids, begin);
      const last = lastToken(ids, padTokenId);
      if (last < 0) {
        throw new DataError(`${rows.labels[numbers[i]].where}: the row is nothing but padding (token ${padTokenId})`);
      }
      at[r] = begin + last;
      if (!next) continue;
      next.targets.set(ids.subarray(1), begin);
      next.counted.fill(1, begin, begin + ids.length - 1);
      next.divisors[r] = sequences * Math.max(1, ids.length - 1);
    }
    for (let k = row.length; k < choices; k++) at[i * choices + k] = (i * choices + k) * T;
  }
  const range = [0, vocabSize - 1] as const,
    arrays: Record<string, BatchArray> = {
      tokens: { values: tokens, shape: [R, T], range },
      at: { values: at, shape: [R], range: [0, R * T - 1] },
    };
  if (choices > 1) arrays.mask = choiceMask(rows, numbers, choices);
  if (next) {
    arrays.targets = { values: next.targets, shape: [R, T], range };
    arrays.counted = { values: next.counted, shape: [R, T] };
    arrays.divisors = { values: next.divisors, shape: [R] };
  }
  return arrays;
}

/** The mask that is added to the scores of K choices, (B, K): 0 for a row's choices, −1e30 for choices that it lacks. */
export function choiceMask(rows: HeadRows, numbers: readonly number[], choices: number): BatchArray {
  const values = new Float32Array(numbers.length * choices).fill(-1e30);
  for (const [i, row] of numbers.entries()) {
    values.fill(0, i * choices, i * choices + rows.first(row + 1) - rows.first(row));
  }
  return { values, shape: [numbers.length, choices] };
}

/**
 * The labels of a batch in the form that the loss takes: classes (B), or numbers (B, L).
 *
 * @throws {DataError} when a row's label is not one of the labels; the message names the row
 */
export function labelArray(rows: HeadRows, numbers: readonly number[], labelling: Labelling): BatchArray {
  const found = numbers.map((row) => labelNumbers(rows.labels[row], labelling)), B = numbers.length;
  if (labelling.problemType !== "single_label_classification") {
    return { values: Float32Array.from(found.flat()), shape: [B, labelling.labels.length] };
  }
  return { values: Int32Array.from(found as number[]), shape: [B], range: [0, labelling.labels.length - 1] };
}

/** The index of the right choice in each row, (B). @throws {DataError} when a row's label is not one of its choices */
export function choiceArray(rows: HeadRows, numbers: readonly number[]): BatchArray {
  const values = Int32Array.from(numbers, (row) => {
    const { label, where } = rows.labels[row], count = rows.sequences(row).length;
    if (Number.isInteger(label) && (label as number) >= 0 && (label as number) < count) return label as number;
    throw new DataError(`${where}: the label is ${JSON.stringify(label)}; expected a choice from 0 to ${count - 1}`);
  });
  return { values, shape: [numbers.length], range: [0, rows.choices - 1] };
}
