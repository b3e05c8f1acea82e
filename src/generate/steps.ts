/**
 * Computes a step: draws noise, launches passes, reads the chosen tokens, and gives each row its next tokens.
 *
 * On devices where reading is slow, several steps are launched before their tokens are read. Tokens that were
 * computed after the end of a row are discarded.
 */
import { BANNED } from "../../kernels/choose/record.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { NumberArray } from "../kernel.ts";
import { Pace } from "../loop/pace.ts";
import { type ChoosingRow, idle, type Told } from "./choosing.ts";
import { type Passed, type Passes, type Place, stepWidth } from "./passes.ts";
import type { RowOptions } from "./options.ts";
import type { LiveRow, TokenLogprob } from "./row.ts";

/** Milliseconds between two reads on devices where reading is slow: short enough for text to appear smoothly. */
const PACE = 60;

/** The rows of a step. */
export interface Plan {
  /** Rows with one token to process. */
  readonly writing: LiveRow[];
  /** Rows with more tokens to process, and how many of them this step processes. */
  readonly reading: { readonly row: LiveRow; readonly count: number }[];
  /** Rows longer than the block size with `crop`: each needs a pass over its last tokens. */
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

  /** Computes a step, and gives each row its next tokens. */
  async run({ writing, reading, cropped }: Plan): Promise<void> {
    const passes = this.#passes;
    const ends = reading.filter(({ row, count }) => count === row.unread && row.left > 0).map(({ row }) => row);
    const choosing = [...writing, ...ends], all = [...choosing, ...cropped];
    const width = reading.length > 0 ? choosing.length : stepWidth(writing.length || 1);
    const steps = this.#count(all, width + cropped.length, reading.length > 0);
    const first = choosing.length > 0 ? (steps - 1) * width + choosing.length : 0;
    const draw = (row: LiveRow, at: (step: number) => number) => {
      for (let step = 0; step < steps; step++) row.draw(passes.choosing.noise(at(step)));
    };
    choosing.forEach((row, r) => draw(row, (step) => step * width + r));
    cropped.forEach((row, r) => draw(row, (step) => first + r * steps + step));
    if (all.some(({ noisy }) => noisy)) passes.choosing.write(first + cropped.length * steps);
    passes.choosing.prepare(all);
    this.#pace.begin();

    const groups: (readonly LiveRow[])[] = [], results: ReturnType<Passed["read"]>[] = [];
    const scored: { row: LiveRow; given: ChoosingRow }[] = [];
    /** Begins to read the tokens that a pass has chosen, before the next pass is launched. */
    const launched = (passed: Passed | undefined, rows: readonly LiveRow[]) => {
      if (!passed) return;
      groups.push(rows);
      results.push(passed.read());
      passed[Symbol.dispose]();
    };
    if (reading.length > 0) launched(this.#read(writing, reading, choosing, scored), choosing);
    else if (writing.length > 0) launched(passes.decode(writing, steps), choosing);
    cropped.forEach((row, r) => launched(passes.crop(row, steps, first + r * steps), [row]));

    for (const [i, told] of (await Promise.all(results)).entries()) {
      if (groups[i] === choosing) scored.forEach(({ row }, k) => score(row, told(0, choosing.length + k)));
      for (let step = 0; step < steps; step++) groups[i].forEach((row, r) => this.#take(row, told(step, r)));
    }
    for (const { row } of reading) if (row.left === 0 && row.scores.length === row.scored) row.end();
    if (steps === this.#pace.steps) this.#pace.waited();
  }

  /** How many steps to launch before their tokens are read. */
  #count(rows: readonly LiveRow[], width: number, reads: boolean): number {
    if (reads || this.#model.device.readsAtOnce) return 1;
    const { blockSize } = this.#model.config, left = Math.max(...rows.map(({ left }) => left));
    const room = Math.min(...rows.map((row) => row.cropped ? Infinity : blockSize - row.position));
    return Math.max(1, Math.min(this.#pace.steps, Math.floor(this.#passes.most / width), left, room));
  }

  /** Launches a pass with pieces of prompts. */
  #read(
    writing: readonly LiveRow[],
    reading: Plan["reading"],
    choosing: readonly LiveRow[],
    scored: { row: LiveRow; given: ChoosingRow }[],
  ) {
    const tokens: Place[] = [], last = new Map<LiveRow, number>(), more: number[] = [];
    const show = (row: LiveRow, count: number) => {
      for (let i = 0; i < count; i++) {
        const position = row.read + i, number = row.window + position;
        if (number < row.scored) {
          more.push(tokens.length);
          scored.push({ row, given: { ...idle, given: row.tokens[number + 1], likely: scoredBeside(row.request) } });
        }
        tokens.push({ id: row.tokens[number], slot: row.slot, position, tag: row.tag });
      }
      last.set(row, tokens.length - 1);
    };
    for (const row of writing) show(row, 1);
    for (const { row, count } of reading) show(row, count);
    const of = [...choosing.map((row) => last.get(row)!), ...more];
    const passed = this.#passes.read(tokens, of, [...choosing, ...scored.map(({ given }) => given)]);
    for (const { row, count } of reading) row.read += count;
    return passed;
  }

  #take(row: LiveRow, { id, likely }: Told): void {
    if (row.over) return;
    if (!row.cropped) row.read = row.tokens.length - row.window;
    try {
      if (id === BANNED) throw new ConfigError("logitBias or a penalty bans every token");
      if (id < 0) throw new DataError("the model's logits are not numbers: its weights are damaged");
      if (row.likely === undefined) row.take({ id });
      else {
        const [{ logprob }, ...top] = pairs(likely!, row.likely);
        row.take({ id, logprob, ...row.request.topLogprobs !== undefined && { topLogprobs: top } });
      }
      fit(row, this.#model.config.blockSize);
    } catch (error) { // the error concerns only this row
      row.end(error);
    }
  }
}

/** The chosen token and `count` of the most likely tokens, with their log-probabilities. */
const pairs = (likely: NumberArray, count: number): TokenLogprob[] =>
  Array.from({ length: count + 1 }, (_, k) => ({ id: likely[2 * k], logprob: likely[2 * k + 1] }));

/** How many of the most likely tokens are read for each token of a prompt: at least one, for `PromptToken.greedy`. */
export const scoredBeside = ({ promptLogprobs = 0 }: RowOptions): number => Math.max(promptLogprobs, 1);

function score(row: LiveRow, { likely }: Told): void {
  const [{ id, logprob }, ...top] = pairs(likely!, scoredBeside(row.request));
  row.scores.push({ id, logprob, topLogprobs: top.slice(0, row.request.promptLogprobs), greedy: top[0].id === id });
}

/** Handles a row that is longer than the block size: begins to crop it, or slides its window. */
export function fit(row: LiveRow, blockSize: number): void {
  const { length } = row.tokens;
  if (row.cropped || length - row.window <= blockSize) return;
  row.fresh = false;
  if (row.request.overflow !== "slide") return void (row.cropped = true);
  const isPrompt = length === row.prompt;
  row.window = length - (isPrompt ? blockSize : Math.max(1, blockSize >> 1));
  row.read = 0;
}
