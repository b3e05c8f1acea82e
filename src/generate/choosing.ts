/**
 * What the choice of next tokens needs on the device besides logits (kernels/choose): noise, each row's record and state, tables
 * of the rows that ask for a bias or penalties, and places for log-probabilities. The last two are made when they are asked for.
 */
import { choose } from "../../kernels/choose/kernel.ts";
import { BY_NOISE, BY_STREAM, needsTables, recordFields, recordOf, tablesOf } from "../../kernels/choose/record.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";
import { type Device, Storage } from "../engine/device.ts";
import type { NumberArray } from "../kernel.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** A row, as the choice of its next token sees it. */
export interface ChoosingRow {
  readonly slot: number;
  /** All its tokens, of which the first `prompt` are the prompt's. */
  readonly tokens: readonly number[];
  readonly prompt: number;
  readonly request: SamplingOptions;
  /** For how many of the likeliest tokens it wants log-probabilities; undefined: not even for the chosen one. */
  readonly likely: number | undefined;
  /** Of its own stream; undefined where noise is drawn for it. */
  readonly seed: number | undefined;
  /** A token that is there already: it is not chosen, only told of. */
  readonly given?: number;
}

/** What was chosen for a row. */
export interface Told {
  readonly id: number;
  /** Where the row asks: pairs of an id and its log-probability, of the chosen token and of the likeliest. */
  readonly likely: NumberArray | undefined;
}

/** Fills a place where no row is, and chooses what nobody reads. */
export const idle: ChoosingRow = {
  ...{ slot: -1, tokens: [], prompt: 0, request: { temperature: 0 } },
  ...{ likely: undefined, seed: undefined },
};

/** Of R rows: (R, fields) f32. */
export const recordsOf = (rows: readonly ChoosingRow[]): number[] =>
  rows.flatMap(({ request, slot, likely }) => recordOf(request, slot, likely));
/** As {@linkcode recordsOf}, (R, 4) i32; `first` is the first row's number in the noise. */
export const stateOf = (rows: readonly ChoosingRow[], first: number): Int32Array =>
  Int32Array.from(rows.flatMap(({ seed, tokens, given }, r) => [
    seed ?? 0,
    tokens.length,
    given ?? (seed === undefined ? BY_NOISE : BY_STREAM),
    first + r,
  ]));

/** How many pairs the row that wants most has. */
const pairsOf = (rows: readonly ChoosingRow[]): number =>
  rows.reduce((most, { likely = -1 }) => Math.max(most, likely + 1), 0);

export class Choosing implements Disposable {
  /** (most, V): noise for the choices between two readings. */
  readonly #drawn: Float32Array;
  readonly #noise: Tensor;
  /** (slots, 2, V) */
  #tables: Tensor | undefined;
  /** The row whose tables stand in each slot. */
  readonly #tabled = new Map<number, ChoosingRow>();
  /** (most, K, 2), of the choices between two readings. */
  #likely: Tensor | undefined;

  /** @param options.changed is called when captured choices are to be captured anew, for their operands are others */
  constructor(
    readonly device: Device,
    readonly options: { vocabSize: number; slots: number; most: number; changed: () => void },
  ) {
    const { vocabSize, most } = options;
    this.#drawn = new Float32Array(most * vocabSize).fill(1);
    this.#noise = device.tensor(this.#drawn, [most, vocabSize]);
  }

  /** The noise for choice number `at`, to be filled. */
  noise(at: number): Float32Array {
    const { vocabSize } = this.options;
    return this.#drawn.subarray(at * vocabSize, (at + 1) * vocabSize);
  }
  /** Takes the noise for so many choices to the device. */
  write(count: number): void {
    const length = count * this.options.vocabSize;
    this.device.write(new Storage(this.#noise.storage.block, length), this.#drawn.subarray(0, length));
  }

  /** What it has to make when a row asks so that does not yet: bytes of tables for all slots, and of places for pairs. */
  lacks(request: SamplingOptions, likely: number | undefined): Record<"tables" | "pairs", number> {
    const { vocabSize, slots, most } = this.options, each = this.device.bytesOf("f32");
    const pairs = pairsOf([{ ...idle, likely }]) - (this.#likely?.shape[1] ?? 0);
    return {
      tables: needsTables(request) && !this.#tables ? slots * 2 * vocabSize * each : 0,
      pairs: most * 2 * Math.max(0, pairs) * each,
    };
  }
  /** Makes and fills what rows ask for, before they choose. From then on a row's tables go on by themselves. */
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

  /** Launches a choice for each of R rows: ids (R). Pairs go to `likely`, or wait for {@linkcode read}. */
  choose(logits: Tensor, { records, state }: Record<"records" | "state", Tensor>, likely = this.#likely): Tensor {
    const R = state.shape[0], operands = { noise: this.#noise, records, state, tables: this.#tables, likely };
    return launch(choose, { logits: logits.alias([R, this.options.vocabSize]), ...operands }).ids;
  }
  /** A choice that is made once; the caller disposes of what it returns. */
  once(logits: Tensor, rows: readonly ChoosingRow[]): { ids: Tensor; likely: Tensor | undefined } {
    const { device } = this, R = rows.length, pairs = pairsOf(rows);
    using scope = device.scope();
    const likely = pairs > 0 ? device.empty([R, pairs, 2]) : undefined;
    const records = device.tensor(recordsOf(rows), [R, recordFields.length]);
    const state = device.tensor(stateOf(rows, 0), [R, 4]);
    const ids = scope.keep(this.choose(logits, { records, state }, likely));
    return { ids, likely: likely && scope.keep(likely) };
  }
  /** What rows have been told in the choices from number `first` on, where one asks. */
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
