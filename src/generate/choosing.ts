/**
 * What the kernel that chooses next tokens (kernels/choose) reads besides the logits. For each choice: a row of V
 * random numbers, the noise. For each text: a record with its sampling options, a state (seed, position, how to choose,
 * noise row), and a table of logit biases and token counts if it uses a bias or penalties. The kernel writes
 * log-probabilities to a tensor of pairs (id, log-probability). Tables and pairs are allocated when a text first needs
 * them.
 */
import { choose } from "../../kernels/choose/kernel.ts";
import { BY_NOISE, BY_STREAM, needsTables, recordFields, recordOf, tablesOf } from "../../kernels/choose/record.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";
import { type Device, Storage } from "../engine/device.ts";
import type { NumberArray } from "../kernel.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** What choosing the next token of a row needs to know about the row. A row is one text that is being generated. */
export interface ChoosingRow {
  readonly slot: number;
  /** The row's tokens; the first `prompt` of them are the prompt. */
  readonly tokens: readonly number[];
  readonly prompt: number;
  readonly request: SamplingOptions;
  /**
   * How many of the most likely tokens to give log-probabilities for; undefined: none, not even for the chosen token.
   */
  readonly likely: number | undefined;
  /** Seed of the row's own random stream (Philox); undefined if the host draws noise for the row. */
  readonly seed: number | undefined;
  /**
   * The next token, if it is known, as in a prompt: the kernel then chooses nothing and only computes
   * log-probabilities.
   */
  readonly given?: number;
}

/** The token chosen for a row. */
export interface Told {
  readonly id: number;
  /**
   * Pairs (id, log-probability) of the chosen token and then of the most likely tokens; undefined if no row asks for
   * them.
   */
  readonly likely: NumberArray | undefined;
}

/** A row for the unused places of a step. The token chosen for it is never read. */
export const idle: ChoosingRow = {
  ...{ slot: -1, tokens: [], prompt: 0, request: { temperature: 0 } },
  ...{ likely: undefined, seed: undefined },
};

/** The records of R rows: (R, fields) f32. */
export const recordsOf = (rows: readonly ChoosingRow[]): number[] =>
  rows.flatMap(({ request, slot, likely }) => recordOf(request, slot, likely));
/** The states of R rows: (R, 4) i32. `first` is the noise row of the first of them. */
export const stateOf = (rows: readonly ChoosingRow[], first: number): Int32Array =>
  Int32Array.from(rows.flatMap(({ seed, tokens, given }, r) => [
    seed ?? 0,
    tokens.length,
    given ?? (seed === undefined ? BY_NOISE : BY_STREAM),
    first + r,
  ]));

/** The largest number of pairs (id, log-probability) that a row asks for. */
const pairsOf = (rows: readonly ChoosingRow[]): number =>
  rows.reduce((most, { likely = -1 }) => Math.max(most, likely + 1), 0);

export class Choosing implements Disposable {
  /**
   * (most, V): one noise row for each choice. The host reads results after at most `most` choices, then noise rows are
   * reused.
   */
  readonly #drawn: Float32Array;
  readonly #noise: Tensor;
  /** (slots, 2, V): the biases and token counts of the row in each slot. */
  #tables: Tensor | undefined;
  /** By slot: the row whose biases and token counts are in `#tables`. */
  readonly #tabled = new Map<number, ChoosingRow>();
  /** (most, K, 2): K pairs (id, log-probability) for each choice that the host has not read yet. */
  #likely: Tensor | undefined;

  /**
   * @param options.most the most choices before the host reads results
   * @param options.changed called when tables or pairs are replaced, because programs captured with the old tensors are
   *   then invalid
   */
  constructor(
    readonly device: Device,
    readonly options: { vocabSize: number; slots: number; most: number; changed: () => void },
  ) {
    const { vocabSize, most } = options;
    this.#drawn = new Float32Array(most * vocabSize).fill(1);
    this.#noise = device.tensor(this.#drawn, [most, vocabSize]);
  }

  /** Noise row `at`, for the caller to fill. */
  noise(at: number): Float32Array {
    const { vocabSize } = this.options;
    return this.#drawn.subarray(at * vocabSize, (at + 1) * vocabSize);
  }
  /** Copies the first `count` noise rows to the device. */
  write(count: number): void {
    const length = count * this.options.vocabSize;
    this.device.write(new Storage(this.#noise.storage.block, length), this.#drawn.subarray(0, length));
  }

  /** Bytes that adding a row with this request would allocate: for the tables of all slots, and for pairs. */
  lacks(request: SamplingOptions, likely: number | undefined): Record<"tables" | "pairs", number> {
    const { vocabSize, slots, most } = this.options, each = this.device.bytesOf("f32");
    const pairs = pairsOf([{ ...idle, likely }]) - (this.#likely?.shape[1] ?? 0);
    return {
      tables: needsTables(request) && !this.#tables ? slots * 2 * vocabSize * each : 0,
      pairs: most * 2 * Math.max(0, pairs) * each,
    };
  }
  /**
   * Allocates and fills the tables and pairs that rows need. Must be called before choosing. The kernel then updates
   * the token counts in the tables.
   */
  prepare(rows: readonly ChoosingRow[]): void {
    const { vocabSize, slots, most } = this.options, pairs = pairsOf(rows);
    const tabled = rows.filter((row) => needsTables(row.request) && this.#tabled.get(row.slot) !== row);
    const makes = tabled.length > 0 && !this.#tables, grows = pairs > (this.#likely?.shape[1] ?? 0);
    if (makes || grows) this.options.changed();
    if (makes) this.#tables = this.device.empty([slots, 2, vocabSize]);
    if (grows) {
      this.#likely?.dispose();
      this.#likely = undefined;
      this.#likely = this.device.empty([most, pairs, 2]);
    }
    for (const row of tabled) {
      const length = 2 * vocabSize, tables = new Storage(this.#tables!.storage.block, length, row.slot * length);
      this.device.write(tables, tablesOf(row.request, row, vocabSize));
      this.#tabled.set(row.slot, row);
    }
  }

  /**
   * Launches the choice of a token for each of R rows.
   *
   * @param likely where pairs are written; default: the tensor that {@linkcode read} reads
   * @returns ids (R)
   */
  choose(logits: Tensor, { records, state }: Record<"records" | "state", Tensor>, likely = this.#likely): Tensor {
    const R = state.shape[0], operands = { noise: this.#noise, records, state, tables: this.#tables, likely };
    return launch(choose, { logits: logits.alias([R, this.options.vocabSize]), ...operands }).ids;
  }
  /** Chooses a token for each row, outside of captured programs. The caller disposes of the returned tensors. */
  once(logits: Tensor, rows: readonly ChoosingRow[]): { ids: Tensor; likely: Tensor | undefined } {
    const { device } = this, R = rows.length, pairs = pairsOf(rows);
    using scope = device.scope();
    const likely = pairs > 0 ? device.empty([R, pairs, 2]) : undefined;
    const records = device.tensor(recordsOf(rows), [R, recordFields.length]);
    const state = device.tensor(stateOf(rows, 0), [R, 4]);
    const ids = scope.keep(this.choose(logits, { records, state }, likely));
    return { ids, likely: likely && scope.keep(likely) };
  }
  /**
   * Reads the pairs of the `count` choices from noise row `first` on.
   *
   * @returns a function that gives the pairs of choice number 0 to `count` − 1, or undefined if no row asks for pairs
   */
  async read(
    rows: readonly ChoosingRow[],
    first: number,
    count: number,
  ): Promise<(at: number) => NumberArray | undefined> {
    if (pairsOf(rows) === 0) return () => undefined;
    const { storage: { block }, shape: [, pairs] } = this.#likely!, length = 2 * pairs;
    const values = await this.device.read(new Storage(block, count * length, first * length));
    return (at) => values.subarray(at * length, (at + 1) * length);
  }

  [Symbol.dispose](): void {
    for (const tensor of [this.#noise, this.#tables, this.#likely]) tensor?.dispose();
  }
}
