/**
 * Many texts at once: rows, each with its prompt, options, stop conditions and random stream, which join and leave at any step.
 *
 * Rows that have one token to show go through one step together. Where prompts are read, a pass takes a piece of them beside
 * the rows that write, so that those do not stall; attention sees for each token its slot and its position. On the CPU no row's
 * bits depend on the others. What a prompt has in common with what stands in another slot is copied.
 *
 * Nothing runs by itself: a reader who asks for a token that is not there computes a step of all rows. Weights may change between two
 * steps: what is computed from then on is computed with the new ones, beside keys and values that a row has of the old ones.
 */
import { Breather } from "../loop/breather.ts";
import { gib, shortage } from "../engine/capacity.ts";
import { ConfigError, DeviceError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { layout } from "../engine/storage.ts";
import type { CacheType } from "../nn/cache.ts";
import { checkGeneration } from "./options.ts";
import { Noise } from "./noise.ts";
import { Passes, slotBytes, stepWidth } from "./passes.ts";
import type { Tensor } from "../engine/tensor.ts";
import { RandomGenerator } from "../random/mod.ts";
import { likelyOf, LiveRow, type Row, type RowOwner, type RowRequest } from "./row.ts";
import { fit, type Plan, scoredBeside, Steps } from "./steps.ts";

/** From how many tokens on a common prefix is copied, or waited for. */
const LEAST_COMMON = 4;

/** How many rows there can be, and how prompts are read. */
export interface RowsOptions {
  /** How many rows there can be at once; each has room for keys and values of a whole block. */
  readonly slots: number;
  /** How many tokens of prompts are read in a step beside rows that write. Default 128. */
  readonly piece?: number;
  /** And in a step in which none writes. Default: as many as the block size, or a piece where that is more. */
  readonly idlePiece?: number;
  /** How keys and values are stored: `f32`, the default, or `bf16`, rounded to the nearest, in half the memory. */
  readonly cache?: CacheType;
  /**
   * Whether a prompt goes on from what another row has left in a slot that begins like it, so that only the rest is read. Default: where
   * there are several slots.
   */
  readonly reuse?: boolean;
  /** Runs a pass over tokens whose rows have these tags, i32, one a token: what `RowOptions.tag` is for. Outside of captures, too. */
  readonly tagged?: (tags: Tensor, pass: () => Tensor) => Tensor;
}

/**
 * Texts that a model writes at once.
 *
 * @example
 * ```ts
 * import { createDevice, GPT, Rows } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * using rows = new Rows(model, { slots: 2 });
 * const texts = [[1, 2, 3], [4]].map((prompt, seed) => rows.add({ prompt, seed, maxNewTokens: 5 }));
 * await Promise.all(texts.map(async (row, i) => {
 *   for await (const { id } of row) console.log(i, id);
 * }));
 * ```
 */
export class Rows implements Disposable {
  readonly #owner: RowOwner = { step: () => this.#step(), leave: (row) => this.#leave(row) };
  readonly #passes: Passes;
  readonly #piece: number;
  readonly #idlePiece: number;
  readonly #reuse: boolean;
  /** In the order in which they came. */
  #live: LiveRow[] = [];
  /** The row whose keys and values stand in each slot, over or not. */
  readonly #held: (LiveRow | undefined)[];
  /** Slots without a row, the longest free first. */
  readonly #free: number[];
  readonly #breather = new Breather();
  readonly #steps: Steps;
  #running: Promise<number> | undefined;
  /** How often weights had been written, or layers changed, when that was last looked at. */
  #written = 0;

  /**
   * Rows of a model, which has to live as long as they do.
   * @throws {ConfigError} when a number is not a whole number above 0, or `cache` neither f32 nor bf16
   * @throws {DeviceError} when the slots do not fit into what the device has left; the message has the figures
   */
  constructor(
    readonly model: GPT,
    {
      slots,
      piece = 128,
      idlePiece = Math.max(piece, model.config.blockSize),
      cache = "f32",
      reuse = slots > 1,
      tagged,
    }: RowsOptions,
  ) {
    for (const [name, value] of Object.entries({ slots, piece, idlePiece })) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new ConfigError(`Rows: ${name} is ${value}; expected a whole number above 0`);
      }
    }
    if (cache !== "f32" && cache !== "bf16") throw new ConfigError(`Rows: cache is ${cache}; expected f32 or bf16`);
    checkSlots(model, slots, cache);
    this.#piece = piece;
    this.#idlePiece = idlePiece;
    this.#reuse = reuse;
    this.#passes = new Passes(model, { slots, cache, tagged });
    this.#steps = new Steps(this.#passes);
    this.#held = new Array<LiveRow | undefined>(slots).fill(undefined);
    this.#free = Array.from({ length: slots }, (_, slot) => slot);
  }

  /** How many rows can be added now. */
  get free(): number {
    return this.#free.length;
  }

  /** Bytes of keys and values; none before the first row. */
  get cacheBytes(): number {
    return this.#passes.made;
  }

  /**
   * A text to be written. It joins at the next step; its tokens are those that {@linkcode generate} gives alone with the same
   * options.
   *
   * @throws {ConfigError} when an option is out of range, the prompt is empty, not of the vocabulary or longer than the block
   *   size with `overflow: "refuse"`, or no slot is free
   * @throws {DeviceError} when it asks for a bias, penalties or log-probabilities, and what they take does not fit into what
   *   the device has left; the message has the figures
   */
  add(request: RowRequest): Row {
    return this.addSequences(request, 1)[0];
  }

  /**
   * Several texts that go on from one prompt, which is read once. They share one generator, in `torch.multinomial`'s order: the
   * noise of a token is drawn for all of them, those that are over too.
   *
   * @throws {ConfigError} as {@linkcode add}
   * @throws {DeviceError} as {@linkcode add}
   */
  addSequences(request: RowRequest, count: number): Row[] {
    const tokens = Array.from(request.prompt),
      { seed = 1337, generator } = request,
      { config } = this.model;
    const left = checkGeneration(request, tokens, config);
    if (request.tag && (request.overflow ?? "crop") === "crop") {
      throw new ConfigError(
        "Rows: a row with a tag cannot crop past the block size; expected overflow refuse or slide",
      );
    }
    if (count > this.#free.length) throw this.#full(count);
    this.#checkAsked(request, tokens.length);
    this.#forgetOldWeights();
    const noise = new Noise(generator ?? new RandomGenerator(seed), generator !== undefined);
    return Array.from({ length: count }, () => {
      const common = this.#free.map((slot) => this.#reuse ? commonPrefix(tokens, request, this.#held[slot]) : 0),
        most = Math.max(...common);
      const [slot] = this.#free.splice(common.indexOf(most), 1);
      const row = new LiveRow(this.#owner, request, slot, left, noise, tokens);
      if (row.fresh) row.read = row.reused = most; // it stands there already
      fit(row, config.blockSize);
      this.#held[slot] = row;
      this.#live.push(row);
      if (left === 0 && row.scored === 0) row.end();
      return row;
    });
  }

  /** That there is room for what a row asks for, before it has a slot: what does not fit in a step ends all rows of the step. */
  #checkAsked(request: RowRequest, prompt: number): void {
    const { device, config: { vocabSize } } = this.model, passes = this.#passes;
    const { tables, pairs } = passes.choosing.lacks(request, likelyOf(request));
    const scored = Math.min(prompt - 1, Math.max(this.#piece, this.#idlePiece)),
      each = vocabSize + 2 + 2 * scoredBeside(request);
    const logits = request.promptLogprobs === undefined ? 0 : scored * each * device.bytesOf("f32");
    if (tables + pairs + logits === 0) return;
    const parts = {
      "tables of bias and penalties": tables,
      "log-probabilities": pairs,
      "the prompt's logits": logits,
      "keys and values": passes.unmade,
    };
    const bytes = tables + pairs + logits + passes.unmade;
    const why = shortage({ bytes, largest: Math.max(tables, pairs, logits) }, device);
    if (!why) return;
    const said = Object.entries(parts).flatMap(([what, bytes]) => bytes > 0 ? `${what} ${gib(bytes)}` : []).join(", ");
    throw new DeviceError(`Rows: what this row asks for, with ${passes.slots} slots, ${why}: ${said}`);
  }
  #full(count: number): ConfigError {
    const reading = this.#live.filter((row) => row.tokens.length === row.prompt).length, { length } = this.#held;
    const writing = this.#live.length - reading, next = Math.min(...this.#live.map(({ left }) => left));
    return new ConfigError(
      `Rows: ${
        count === 1 ? "no slot is" : `only ${this.#free.length} slots are`
      } free of ${length}: ${writing} rows write, ` +
        `${reading} wait for their first token; the next ends after at most ${next} more tokens`,
    );
  }

  #leave(row: LiveRow): void {
    this.#live.splice(this.#live.indexOf(row), 1);
    this.#free.push(row.slot);
  }

  /** How often weights have been written, or layers changed. */
  get #writes(): number {
    return this.model.parameters().reduce((sum, { storage }) => sum + storage.block.version, layout.changes);
  }
  /** What stands in slots was computed with the weights and the layers of its time: for rows that have not begun it is of no use. */
  #forgetOldWeights(): void {
    if (!this.#reuse) return; // what is one text's is never another's
    const writes = this.#writes;
    if (writes === this.#written) return;
    this.#written = writes;
    this.#held.fill(undefined);
    for (const row of this.#live.filter(({ fresh }) => fresh)) {
      row.read = row.reused = 0;
      this.#held[row.slot] = row;
    }
  }

  /**
   * Computes the next step of all rows, for a caller that takes their tokens with `ready()`. Never rejects.
   *
   * @returns of how many rows it was
   */
  step(): Promise<number> {
    return this.#running ??= this.#run();
  }
  /** The same for readers that wait. */
  #step(): Promise<unknown> {
    return this.#running ??= this.#breather.breathe().then(() => this.#run()); // others who have got a token take it, and may add and abort
  }
  async #run(): Promise<number> {
    try {
      return await this.#compute();
    } finally {
      this.#running = undefined;
    }
  }
  async #compute(): Promise<number> {
    for (const row of [...this.#live]) if (row.request.signal?.aborted) row.abort();
    const begins = this.#live.some(({ fresh }) => fresh);
    if (begins) this.#forgetOldWeights();
    let rows = [...this.#live];
    try {
      const plan = this.#plan();
      rows = [...plan.writing, ...plan.cropped, ...plan.reading.map(({ row }) => row)];
      const step = this.#steps.run(plan); // launches, and then waits
      if (begins) this.#written = this.#writes; // what it has switched in the model itself is no change
      await step;
    } catch (error) { // of the device, or the model
      for (const row of rows) row.end(error);
    }
    return rows.length;
  }

  #plan(): Plan {
    const plan: Plan = { writing: [], reading: [], cropped: [] }, unread: LiveRow[] = [];
    for (const row of this.#live) {
      if (row.cropped) { // it costs as much beside others as alone: it can wait until somebody does
        if (row.wanted || row.noise.rows.length > 1) plan.cropped.push(row);
      } else if (row.unread === 1 && row.left > 0) {
        row.fresh = false; // all but one may stand in its slot from before
        plan.writing.push(row);
      } else unread.push(row);
    }
    let budget = plan.writing.length > 0 ? this.#piece : this.#idlePiece;
    for (const [i, row] of unread.entries()) {
      if (budget === 0 || (row.fresh && !this.#begin(row, unread.slice(0, i)))) continue;
      const count = Math.min(row.unread, budget);
      plan.reading.push({ row, count });
      budget -= count;
    }
    return plan;
  }
  /** Copies what another slot has of a prompt. @returns whether to read it now: what is being read for another is waited for */
  #begin(row: LiveRow, before: readonly LiveRow[]): boolean {
    const { tokens, request } = row;
    const common = this.#held.map((other) => other === row ? 0 : commonPrefix(tokens, request, other));
    const most = Math.max(...common), first = before.filter((other) => other.window === 0 && together(request, other));
    const soon = Math.max(0, ...first.map((other) => sameFrom(tokens, other.tokens, 0, other.prompt)));
    if (Math.min(soon, tokens.length - 1) >= Math.max(row.read, most) + LEAST_COMMON) return false;
    row.fresh = false;
    if (most >= row.read + LEAST_COMMON) {
      this.#passes.copy(common.indexOf(most), row.slot, most);
      row.read = row.reused = most;
    }
    return true;
  }

  /** Ends all rows, and frees what was made for them. */
  [Symbol.dispose](): void {
    for (const row of [...this.#live]) row.abort();
    this.#passes[Symbol.dispose]();
  }
}

/** With how many tokens both begin. */
function sameFrom(a: readonly number[], b: readonly number[], from: number, count: number): number {
  let n = 0;
  while (n < count && n < a.length && a[n] === b[from + n]) n++;
  return n;
}
/** Whether a row may go on from what another has read. */
const together = ({ shares, tag = 0 }: RowRequest, { request }: LiveRow): boolean =>
  shares === request.shares && tag === (request.tag ?? 0);
/** How many tokens of a prompt stand in a row's slot, its last left out, for the model has to be shown one. */
const commonPrefix = (tokens: readonly number[], request: RowRequest, row: LiveRow | undefined): number =>
  row && together(request, row) ? Math.min(sameFrom(tokens, row.tokens, row.window, row.read), tokens.length - 1) : 0;

function checkSlots(model: GPT, slots: number, cache: CacheType): void {
  const { device, config: { vocabSize } } = model, of = slotBytes(model, cache), { all, one } = device.capacity;
  const largest = Math.max(slots * of.layer, 4 * stepWidth(slots) * vocabSize);
  const why = shortage({ bytes: slots * of.all, largest }, device);
  if (!why) return;
  const fit = (cache: CacheType) => {
    const of = slotBytes(model, cache);
    return Math.floor(Math.min((all - device.memory().bytes) / of.all, one / of.layer));
  };
  const rounded = cache === "f32" ? `, ${fit("bf16")} with cache: "bf16"` : "";
  throw new DeviceError(
    `Rows: keys and values of ${slots} texts in ${cache}, ${gib(of.all)} each, ${why}; ${
      fit(cache)
    } texts would fit${rounded}`,
  );
}
