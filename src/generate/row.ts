/** One text that is being generated: its tokens, where they stand, and what its reader has taken of them. */
import type { RowOptions } from "./options.ts";
import type { PassRow } from "./passes.ts";
import { Stopping, type Taken } from "./stopping.ts";
import type { GeneratorState, RandomGenerator } from "../random/mod.ts";

/** What a row goes on from, and how. */
export interface RowRequest extends RowOptions {
  /** Token ids, at least one. */
  readonly prompt: ArrayLike<number>;
}

/** A token and the logarithm of its probability. */
export interface TokenLogprob {
  /** Of the token. */ readonly id: number;
  /** In nats; by the model's own distribution, before temperature, penalties and the rest. */ readonly logprob: number;
}

/** A token, and how likely it was. */
export interface Chosen {
  /** Of the token. */ readonly id: number;
  /** As {@linkcode TokenLogprob.logprob}, where asked for. */ readonly logprob?: number;
  /** The likeliest tokens, the likeliest first, where asked for. */ readonly topLogprobs?: readonly TokenLogprob[];
}

/** The next token of a row. */
export interface RowToken extends Chosen, Taken {}

/** A token of a prompt, after those before it. */
export interface PromptToken extends TokenLogprob {
  /** The likeliest tokens at its place, the likeliest first. */
  readonly topLogprobs: readonly TokenLogprob[];
  /** Whether it is the likeliest itself: what temperature 0 would have chosen. */
  readonly greedy: boolean;
}

/** What a row asks of those that it is one of. */
export interface RowOwner {
  /** Computes the next step of all rows. Never rejects. */
  step(): Promise<void>;
  /** The row needs its slot no longer. */
  leave(row: Row): void;
}

/** Noise for some rows that share a generator: a choice of each of them at a time, in `torch.multinomial`'s order. */
export class Noise {
  readonly rows: Row[] = [];
  /** By the number of the token: what rows that are behind have not yet used, (rows, V). */
  readonly #ahead = new Map<number, Float32Array>();
  /** Before the noise of token number `#settled` + i was drawn. */
  readonly #states: GeneratorState[] = [];
  #settled = 0;
  #drawn = 0;

  /** @param isForeign whether somebody else goes on with the generator, who is to find it where the tokens taken have left it */
  constructor(readonly generator: RandomGenerator, readonly isForeign: boolean) {}

  /** The noise of a row's token number `t`, from 0. */
  fill(into: Float32Array, row: Row, t: number): void {
    const V = into.length, count = this.rows.length;
    let values = this.#ahead.get(t);
    if (t === this.#drawn) {
      if (this.isForeign) this.#states.push(this.generator.getState());
      this.#drawn++;
      if (count === 1) return this.generator.exponential(into);
      const behind = Math.min(...this.rows.map(({ over, drawn }) => over ? Infinity : drawn));
      for (const [number, old] of this.#ahead) {
        if (number < behind && this.#ahead.delete(number)) values = old;
      }
      this.generator.exponential(values ??= new Float32Array(count * V));
      this.#ahead.set(t, values);
    }
    const at = this.rows.indexOf(row);
    into.set(values!.subarray(at * V, (at + 1) * V));
  }
  /** Somebody has taken so many tokens of a row: the states before are of no more use. */
  taken(count: number): void {
    while (this.#settled < count && this.#states.length > 0) {
      this.#states.shift();
      this.#settled++;
    }
  }
  /** Where no row goes on: puts the generator where it would be if noise had been drawn only for the tokens that were taken. */
  settle(): void {
    if (this.#states.length === 0 || !this.rows.every(({ done }) => done)) return;
    this.generator.setState(this.#states[0]);
    this.#states.length = 0;
  }
}

/**
 * A text that {@linkcode Rows} writes: an iterable of its tokens, which come as fast as they are asked for. Leaving the loop, or
 * {@linkcode Row.abort}, frees its slot at once.
 */
export class Row implements PassRow, AsyncIterableIterator<RowToken, undefined, undefined> {
  readonly tokens: number[];
  readonly likely: number | undefined;
  readonly seed: number | undefined;
  /** How many of the tokens are the prompt's. */
  readonly prompt: number;
  /** Number of the token at place 0 of its slot, and how many from there on are in the cache. */
  window = 0;
  read = 0;
  /** Whether nothing of it has been read yet: then a part may be copied. */
  fresh = true;
  /** Whether it shows the model its last tokens, without the cache. */
  cropped = false;
  /** Whether nothing is computed for it any more. */
  over = false;
  /** Whether its reader waits for a token. */
  wanted = false;
  /** Tokens that it has drawn noise for. */
  drawn = 0;
  readonly scores: PromptToken[] = [];
  #queue: RowToken[] = [];
  #taken = 0;
  #error: unknown;
  readonly #stopping: Stopping;

  constructor(
    readonly owner: RowOwner,
    readonly request: RowRequest,
    readonly slot: number,
    /** How many tokens are still to be added. */
    public left: number,
    readonly noise: Noise,
    tokens: readonly number[],
  ) {
    const { logprobs, topLogprobs, promptLogprobs, seed = 1337, draws } = request;
    this.tokens = [...tokens];
    this.prompt = tokens.length;
    this.likely = topLogprobs ?? (logprobs ? 0 : undefined);
    this.seed = draws === "philox" ? seed + noise.rows.length : undefined;
    this.fresh = promptLogprobs === undefined;
    this.#stopping = new Stopping(request);
    noise.rows.push(this);
  }

  /** How many tokens the cache lacks. */
  get unread(): number {
    return this.tokens.length - this.window - this.read;
  }
  /** The last token's place in the slot. */
  get position(): number {
    return this.tokens.length - 1 - this.window;
  }
  /** Whether its reader has had all, or has gone. */
  get done(): boolean {
    return this.over && this.#queue.length === 0;
  }
  /** Whether its choices need noise. */
  get noisy(): boolean {
    return (this.request.temperature ?? 1) > 0 && this.seed === undefined;
  }
  /** Noise for its next choice. */
  draw(into: Float32Array): void {
    if (this.noisy) this.noise.fill(into, this, this.drawn++);
  }
  /** Its next token. */
  take(chosen: Chosen): void {
    this.tokens.push(chosen.id);
    this.left--;
    this.#queue.push({ ...chosen, ...this.#stopping.take(chosen.id, this.left === 0) });
    if (this.#stopping.over) this.end();
  }
  end(error?: unknown): void {
    if (this.over) return;
    this.over = true;
    this.#error = error;
    this.owner.leave(this);
  }

  /** The next token, or none where the text is over. */
  async next(): Promise<IteratorResult<RowToken, undefined>> {
    while (this.#queue.length === 0 && !this.over) {
      this.wanted = true;
      await this.owner.step();
    }
    this.wanted = false;
    const value = this.#queue.shift();
    if (value) {
      this.noise.taken(++this.#taken);
      return { value, done: false };
    }
    this.abort();
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error;
    return { value: undefined, done: true };
  }
  /**
   * The prompt's tokens from the second on, when they have been read.
   *
   * @throws {ConfigError} what reading has thrown
   */
  async promptLogprobs(): Promise<readonly PromptToken[]> {
    while (this.scores.length < this.prompt - 1 && !this.over) await this.owner.step();
    if (this.#error !== undefined) throw this.#error;
    return this.scores;
  }
  /** Ends it: its slot is free at once, and what has been computed and not been taken is thrown away. */
  abort(): void {
    this.end();
    this.#queue = [];
    this.noise.settle();
  }
  /** Called where a loop over the row is left. */
  return(): Promise<IteratorResult<RowToken, undefined>> {
    this.abort();
    return Promise.resolve({ value: undefined, done: true });
  }
  [Symbol.asyncIterator](): this {
    return this;
  }
}
