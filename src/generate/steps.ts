/**
 * What one step of rows is: the noise for their choices, the passes, the choices read back, and each row's next tokens.
 *
 * Where reading is slow and the device chooses, some steps go from one reading to the next; what a row gets behind its end is
 * thrown away.
 */
import { Pace } from "../loop/pace.ts";
import { choose, type Chosen, likelihood } from "./chooser.ts";
import type { NumberArray } from "../kernel.ts";
import { damagedLogits, maximum } from "./logits_processors.ts";
import { type Passed, type Passes, type Place, stepWidth } from "./passes.ts";
import type { LiveRow } from "./row.ts";

/** Milliseconds from one reading to the next where reading is slow, so that text flows. */
const PACE = 60;

/** What a step is about. */
export interface Plan {
  /** Rows that have one token to show. */
  readonly writing: LiveRow[];
  /** Rows of which the cache lacks more, and how many tokens of them it gets. */
  readonly reading: { readonly row: LiveRow; readonly count: number }[];
  /** Rows past the block size that show the model their last tokens. */
  readonly cropped: LiveRow[];
}

export class Steps {
  readonly #pace: Pace;
  readonly #passes: Passes;

  constructor(passes: Passes) {
    this.#passes = passes;
    this.#pace = new Pace(PACE, passes.most);
  }
  get #model() {
    return this.#passes.model;
  }

  /** Computes what a plan is about, and gives each row its next tokens. */
  async run({ writing, reading, cropped }: Plan): Promise<void> {
    const passes = this.#passes, { device } = this.#model;
    const ends = reading.filter(({ row, count }) => count === row.unread && row.left > 0).map(({ row }) => row);
    const choosing = [...writing, ...ends], all = [...choosing, ...cropped];
    const width = reading.length > 0 ? choosing.length : stepWidth(writing.length || 1);
    const steps = this.#count(all, width + cropped.length, reading.length > 0);
    const first = choosing.length > 0 ? (steps - 1) * width + choosing.length : 0;
    const draw = (row: LiveRow, at: (step: number) => number) => {
      for (let step = 0; step < steps; step++) row.draw(passes.noise(at(step)));
    };
    choosing.forEach((row, r) => draw(row, (step) => step * width + r));
    cropped.forEach((row, r) => draw(row, (step) => first + r * steps + step));
    if (all.some(({ onHost, temperature }) => !onHost && temperature > 0)) passes.write(first + cropped.length * steps);
    this.#pace.begin();

    const groups: { rows: readonly LiveRow[]; noise: number }[] = [],
      results: (ReturnType<Passed["ids"]> | Promise<NumberArray> | undefined)[] = [];
    const scored: { row: LiveRow; at: number }[] = [];
    /** Begins to read what a pass has computed, before the next is launched. */
    const launched = (passed: Passed | undefined, rows: readonly LiveRow[], noise: number) => {
      if (!passed) return;
      const needsLogits = rows.some(({ onHost }) => onHost) || (rows === choosing && scored.length > 0);
      groups.push({ rows, noise });
      results.push(
        rows.some(({ onHost }) => !onHost) ? passed.ids() : undefined,
        needsLogits ? device.read(passed.logits.storage) : undefined,
      );
      passed[Symbol.dispose]();
    };
    if (reading.length > 0) launched(this.#read(writing, reading, choosing, scored), choosing, 0);
    else if (writing.length > 0) launched(passes.decode(writing, steps), choosing, 0);
    cropped.forEach((row, r) => launched(passes.crop(row, steps, first + r * steps), [row], first + r * steps));

    const read = await Promise.all(results), V = this.#model.config.vocabSize;
    for (const [i, { rows, noise }] of groups.entries()) {
      const ids = read[2 * i] as Awaited<ReturnType<Passed["ids"]>>, logits = read[2 * i + 1] as NumberArray;
      const row = (r: number) => logits.subarray(r * V, (r + 1) * V);
      if (rows === choosing) scored.forEach(({ row: of, at }, i) => score(of, at, row(choosing.length + i)));
      for (let step = 0; step < steps; step++) {
        for (const [r, each] of rows.entries()) this.#choose(each, () => ids(step, r), () => row(r), noise + r);
      }
    }
    for (const { row } of reading) if (row.left === 0 && row.scores.length === row.scored) row.end();
    if (steps === this.#pace.steps) this.#pace.waited();
  }

  /** How many steps are made before their choices are read. */
  #count(rows: readonly LiveRow[], width: number, reads: boolean): number {
    if (reads || this.#model.device.readsAtOnce || rows.some(({ onHost }) => onHost)) return 1;
    const { blockSize } = this.#model.config, left = Math.max(...rows.map(({ left }) => left));
    const room = Math.min(...rows.map((row) => row.cropped ? Infinity : blockSize - row.position));
    return Math.max(1, Math.min(this.#pace.steps, Math.floor(this.#passes.most / width), left, room));
  }

  /** A pass with pieces of prompts. */
  #read(
    writing: readonly LiveRow[],
    reading: Plan["reading"],
    choosing: readonly LiveRow[],
    scored: { row: LiveRow; at: number }[],
  ) {
    const tokens: Place[] = [], last = new Map<LiveRow, number>(), more: number[] = [];
    const show = (row: LiveRow, count: number) => {
      for (let i = 0; i < count; i++) {
        const position = row.read + i, number = row.window + position;
        if (number < row.scored) more.push(tokens.length), scored.push({ row, at: number + 1 });
        tokens.push({ id: row.tokens[number], slot: row.slot, position });
      }
      last.set(row, tokens.length - 1);
    };
    for (const row of writing) show(row, 1);
    for (const { row, count } of reading) show(row, count);
    const passed = this.#passes.read(tokens, [...choosing.map((row) => last.get(row)!), ...more], choosing);
    for (const { row, count } of reading) row.read += count;
    return passed;
  }

  /** @param noise the number of the row's noise */
  #choose(row: LiveRow, id: () => number, logits: () => NumberArray, noise: number): void {
    if (row.over) return;
    if (!row.cropped) row.read = row.tokens.length - row.window;
    try {
      let chosen: Chosen;
      if (row.onHost) {
        chosen = choose(logits(), this.#passes.noise(noise), row.request, row);
        this.#passes.forget();
      } else chosen = { id: id() };
      if (chosen.id < 0) throw damagedLogits(NaN);
      row.take(chosen);
      fit(row, this.#model.config.blockSize);
    } catch (error) { // of this row alone
      row.end(error);
    }
  }
}

/** @param logits of the token before */
function score(row: LiveRow, at: number, logits: NumberArray): void {
  const id = row.tokens[at], values = new Float64Array(logits);
  const { logprob, topLogprobs = [] } = likelihood(values, id, row.request.promptLogprobs);
  row.scores.push({ id, logprob, topLogprobs, greedy: values.indexOf(maximum(values)) === id });
}

/** Finds a place for what is more than the block size. */
export function fit(row: LiveRow, blockSize: number): void {
  const { length } = row.tokens;
  if (row.cropped || length - row.window <= blockSize) return;
  row.fresh = false;
  if (row.request.overflow !== "slide") return void (row.cropped = true);
  const isPrompt = length === row.prompt;
  row.window = length - (isPrompt ? blockSize : Math.max(1, blockSize >> 1));
  row.read = 0;
}
