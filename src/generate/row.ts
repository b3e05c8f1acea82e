/** One text that is being generated: its tokens, where they stand, and what its reader has taken of them. */
import type { RowOptions } from "./options.ts";
import type { Noise } from "./noise.ts";
import type { PassRow } from "./passes.ts";
import { Stopping, type Taken } from "./stopping.ts";

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
  step(): Promise<unknown>;
  /** The row needs its slot no longer. */
  leave(row: LiveRow): void;
}

/**
 * A text that {@linkcode Rows} writes: an iterable of its tokens, which come as fast as they are asked for. Leaving the loop, or
 * {@linkcode Row.abort}, frees its slot at once.
 */
export interface Row extends AsyncIterableIterator<RowToken, undefined, undefined> {
  /** All its tokens so far, the prompt's too. */
  readonly tokens: readonly number[];
  /** How many of the prompt's tokens stood in a slot already, so that they were not computed; known with the first token. */
  readonly reused: number;
  /** Whether it is over, and its reader has had all of it. */
  readonly done: boolean;
  /**
   * The prompt's tokens from the second on, when they have been read: with `promptLogprobs`.
   *
   * @throws {DeviceError} what reading them has thrown
   */
  promptLogprobs(): Promise<readonly PromptToken[]>;
  /** Of {@linkcode Row.promptLogprobs}, those that have been read. */
  readonly scores: readonly PromptToken[];
  /**
   * The next token, where it has been computed: for a caller that computes steps itself (`Rows.step`).
   *
   * @throws {DeviceError} what computing it has thrown, as the loop over the row does
   */
  ready(): RowToken | undefined;
  /** Ends it: its slot is free at once, and what has been computed and not been taken is thrown away. */
  abort(): void;
}

/** For how many of the likeliest tokens a row wants log-probabilities; undefined: not even for the chosen one. */
export const likelyOf = ({ topLogprobs, logprobs }: RowOptions): number | undefined =>
  topLogprobs ?? (logprobs ? 0 : undefined);

/** A row, as those see it that compute it. */
export class LiveRow implements PassRow, Row {
  readonly tokens: number[];
  readonly likely: number | undefined;
  readonly seed: number | undefined;
  /** How many of the tokens are the prompt's. */
  readonly prompt: number;
  /** Number of the token at place 0 of its slot, and how many from there on are in the cache. */
  window = 0;
  read = 0;
  reused = 0;
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
    const { promptLogprobs, seed = 1337, draws } = request;
    this.tokens = [...tokens];
    this.prompt = tokens.length;
    this.likely = likelyOf(request);
    this.seed = draws === "philox" ? seed + noise.rows.length : undefined;
    this.fresh = promptLogprobs === undefined;
    this.#stopping = new Stopping(request);
    noise.rows.push(this);
  }

  /** What passes are told of it. */
  get tag(): number {
    return this.request.tag ?? 0;
  }
  /** How many of the prompt's tokens are to be scored. */
  get scored(): number {
    return this.request.promptLogprobs === undefined ? 0 : this.prompt - 1;
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
    const value = this.ready();
    return value ? { value, done: false } : { value, done: true };
  }
  ready(): RowToken | undefined {
    const value = this.#queue.shift();
    if (value) this.noise.taken(++this.#taken);
    if (value || !this.over) return value;
    this.abort();
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error;
  }
  async promptLogprobs(): Promise<readonly PromptToken[]> {
    while (this.scores.length < this.scored && !this.over) await this.owner.step();
    if (this.#error !== undefined) throw this.#error;
    return this.scores;
  }
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
