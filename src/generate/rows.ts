/**
 * Generates many texts at once (continuous batching). Each text is a row with its own prompt, options, stop conditions
 * and random stream. Rows join and leave between any two steps.
 *
 * Rows with one token to process share a step. A long prompt is processed in pieces: each pass has a piece of it and
 * one token of every row that generates, so that those rows do not wait for the whole prompt. Each row has a slot,
 * which is its part of the key-value cache. On the CPU, a row's results do not depend on other rows, bit for bit. If a
 * prompt begins with the same tokens as the text in another slot, the keys and values of these tokens are copied.
 *
 * Nothing runs in the background: when a reader asks for a token, a step of all rows is computed. Weights may change
 * between two steps. Later steps use the new weights, but the keys and values that a row has computed with the old
 * weights.
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

/** The shortest common prefix, in tokens, for which a prompt copies keys and values, or waits for another prompt. */
const LEAST_COMMON = 4;

/** The options of {@linkcode Rows}: the number of slots, and how prompts are processed. */
export interface RowsOptions {
  /** The maximum number of rows at a time. Each slot has memory for the keys and values of a whole block. */
  readonly slots: number;
  /** The maximum number of prompt tokens in a step in which other rows generate. Default 128. */
  readonly piece?: number;
  /**
   * The maximum number of prompt tokens in a step in which no row generates. Default: the larger of block size and
   * `piece`.
   */
  readonly idlePiece?: number;
  /** How keys and values are stored: `f32`, the default, or `bf16`, which rounds them and takes half the memory. */
  readonly cache?: CacheType;
  /**
   * Whether a prompt reuses keys and values in a slot whose tokens begin like the prompt, so that only the rest of the
   * prompt is processed. Default: true if there are several slots.
   */
  readonly reuse?: boolean;
  /**
   * Called for every forward pass, captured or not. It must call `pass` and return the result. `tags` has the number
   * `RowOptions.tag` of each token's row (i32), for example to choose the adapter of each token.
   */
  readonly tagged?: (tags: Tensor, pass: () => Tensor) => Tensor;
}

/**
 * Texts that a model generates at once.
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
  /** The rows that have not ended, in the order in which they were added. */
  #live: LiveRow[] = [];
  /** By slot: the row whose keys and values are in it, even if the row has ended. */
  readonly #held: (LiveRow | undefined)[];
  /** Free slots; the slot that has been free longest is first. */
  readonly #free: number[];
  readonly #breather = new Breather();
  readonly #steps: Steps;
  #running: Promise<number> | undefined;
  /** The value of `#writes` when it was last compared. */
  #written = 0;

  /**
   * Makes slots for rows of a model. The model must not be disposed of before the rows.
   * @throws {ConfigError} if a number is not a whole number above 0, or `cache` is neither f32 nor bf16
   * @throws {DeviceError} if the slots do not fit into the memory that the device has left; the message has the figures
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

  /** Bytes of allocated keys and values; 0 before the first row. */
  get cacheBytes(): number {
    return this.#passes.made;
  }

  /**
   * Adds a text, which joins at the next step. {@linkcode generate} gives the same tokens for the same options.
   *
   * @throws {ConfigError} if an option is out of range; if the prompt is empty, has an id outside the vocabulary, or is
   *   longer than the block size with `overflow: "refuse"`; or if no slot is free
   * @throws {DeviceError} if a bias, penalties or log-probabilities need more memory than the device has left; the
   *   message has the figures
   */
  add(request: RowRequest): Row {
    return this.addSequences(request, 1)[0];
  }

  /**
   * Adds several texts that continue one prompt, which is processed once. The texts share a generator, which draws in
   * the order of `torch.multinomial`: the noise for token t is drawn for all texts, including texts that have ended.
   *
   * @throws {ConfigError} like {@linkcode add}
   * @throws {DeviceError} like {@linkcode add}
   */
  addSequences(request: RowRequest, count: number): Row[] {
    const tokens = Array.from(request.prompt),
      { seed = 1337, generator } = request,
      { config } = this.model;
    const left = checkGeneration(request, tokens, config);
    if (request.tag && (request.overflow ?? "crop") === "crop") {
      throw new ConfigError(
        "Rows: a row with a tag cannot be cropped at the block size; expected overflow refuse or slide",
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
      if (row.fresh) row.read = row.reused = most; // these keys and values are already in the slot
      fit(row, config.blockSize);
      this.#held[slot] = row;
      this.#live.push(row);
      if (left === 0 && row.scored === 0) row.end();
      return row;
    });
  }

  /**
   * Checks the memory that a row needs before the row gets a slot. If an allocation fails during a step, all
   * rows of the step end.
   */
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
    throw new DeviceError(`Rows: the memory for this row's options, with ${passes.slots} slots, ${why}: ${said}`);
  }
  #full(count: number): ConfigError {
    const reading = this.#live.filter((row) => row.tokens.length === row.prompt).length, { length } = this.#held;
    const writing = this.#live.length - reading, next = Math.min(...this.#live.map(({ left }) => left));
    return new ConfigError(
      `Rows: ${
        count === 1 ? "no slot is" : `only ${this.#free.length} slots are`
      } free of ${length}: ${writing} rows are generating, ` +
        `${reading} wait for their first token; the next row ends after at most ${next} more tokens`,
    );
  }

  #leave(row: LiveRow): void {
    this.#live.splice(this.#live.indexOf(row), 1);
    this.#free.push(row.slot);
  }

  /** A number that changes when weights are written or layers are replaced. */
  get #writes(): number {
    return this.model.parameters().reduce((sum, { storage }) => sum + storage.block.version, layout.changes);
  }
  /**
   * If weights or layers have changed, ensures that later rows do not reuse keys and values computed with the old
   * weights.
   */
  #forgetOldWeights(): void {
    if (!this.#reuse) return; // rows never use keys and values of other rows
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
   * @returns the number of rows in the step
   */
  step(): Promise<number> {
    return this.#running ??= this.#run();
  }
  /**
   * Computes the next step for readers that wait. Before the step, other readers can take tokens, add rows and abort
   * rows.
   */
  #step(): Promise<unknown> {
    return this.#running ??= this.#breather.breathe().then(() => this.#run());
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
      const step = this.#steps.run(plan); // launches before its first await
      if (begins) this.#written = this.#writes; // the launch may have rearranged weights; their values are unchanged
      await step;
    } catch (error) { // an error of the device or the model
      for (const row of rows) row.end(error);
    }
    return rows.length;
  }

  #plan(): Plan {
    const plan: Plan = { writing: [], reading: [], cropped: [] }, unread: LiveRow[] = [];
    for (const row of this.#live) {
      // A cropped row needs a pass of its own, so it saves nothing by sharing a step: it runs only if its reader waits.
      if (row.cropped) {
        if (row.wanted || row.noise.rows.length > 1) plan.cropped.push(row);
      } else if (row.unread === 1 && row.left > 0) {
        row.fresh = false; // the slot may already have all but one token of a new prompt
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
  /**
   * Copies the keys and values that another slot has for the beginning of a prompt.
   *
   * @returns whether to process the prompt in this step; false if an earlier row is about to compute a longer common
   *   prefix, which can then be copied
   */
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

  /** Ends all rows, and frees their memory. */
  [Symbol.dispose](): void {
    for (const row of [...this.#live]) row.abort();
    this.#passes[Symbol.dispose]();
  }
}

/** Length of the common prefix of `a` and `b.slice(from)`, at most `count`. */
function sameFrom(a: readonly number[], b: readonly number[], from: number, count: number): number {
  let n = 0;
  while (n < count && n < a.length && a[n] === b[from + n]) n++;
  return n;
}
/** Whether a row may reuse keys and values of another row. */
const together = ({ shares, tag = 0 }: RowRequest, { request }: LiveRow): boolean =>
  shares === request.shares && tag === (request.tag ?? 0);
/**
 * The number of a prompt's first tokens that are in a row's slot. At most all but one: the model must process the last
 * token.
 */
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
