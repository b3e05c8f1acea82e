/**
 * A row: one text that is being generated, with its tokens, its state in the cache, and the tokens that its reader has
 * not taken.
 */
import type { RowOptions } from "./options.ts";
import type { Noise } from "./noise.ts";
import type { PassRow } from "./passes.ts";
import { Stopping, type Taken } from "./stopping.ts";

/** The prompt and the options of a row. */
export interface RowRequest extends RowOptions {
  /** Token ids, at least one. */
  readonly prompt: ArrayLike<number>;
}

/** A token and the logarithm of its probability. */
export interface TokenLogprob {
  /** The token's id. */ readonly id: number;
  /** The log-probability in nats, in the model's distribution before temperature, penalties and other options. */
  readonly logprob: number;
}

/** A chosen token, with log-probabilities if the row asks for them. */
export interface Chosen {
  /** The token's id. */ readonly id: number;
  /** See {@linkcode TokenLogprob.logprob}. */ readonly logprob?: number;
  /** The most likely tokens, in descending order of probability. */ readonly topLogprobs?: readonly TokenLogprob[];
}

/** The next token of a row. */
export interface RowToken extends Chosen, Taken {}

/** A token of a prompt, with its log-probability given the tokens before it. */
export interface PromptToken extends TokenLogprob {
  /** The most likely tokens at this position of the prompt, in descending order of probability. */
  readonly topLogprobs: readonly TokenLogprob[];
  /** Whether the token is the most likely one at its position, so that temperature 0 would have chosen it. */
  readonly greedy: boolean;
}

/** What a row calls in the {@linkcode Rows} that it belongs to. */
export interface RowOwner {
  /** Computes the next step of all rows. Never rejects. */
  step(): Promise<unknown>;
  /** Frees the row's slot. */
  leave(row: LiveRow): void;
}

/**
 * A text that {@linkcode Rows} generates: an async iterable of its tokens. Tokens are computed as the caller asks for
 * them. Leaving the loop, or calling {@linkcode Row.abort}, frees the row's slot at once.
 */
export interface Row extends AsyncIterableIterator<RowToken, undefined, undefined> {
  /** All tokens so far, including the prompt. */
  readonly tokens: readonly number[];
  /**
   * The number of prompt tokens that were not computed, because a slot had their keys and values. Final with the first
   * token.
   */
  readonly reused: number;
  /** Whether the text has ended and its reader has taken all tokens. */
  readonly done: boolean;
  /**
   * Log-probabilities of the prompt's tokens from the second on, for the option `promptLogprobs`. Resolves when the
   * prompt has been processed.
   *
   * @throws {DeviceError} the error of the step that processed them
   */
  promptLogprobs(): Promise<readonly PromptToken[]>;
  /** The part of {@linkcode Row.promptLogprobs} that has been computed so far. */
  readonly scores: readonly PromptToken[];
  /**
   * Returns the next token, or undefined if it has not been computed yet. For callers that compute steps with
   * `Rows.step`.
   *
   * @throws {DeviceError} the error of the step that computed it, like a loop over the row
   */
  ready(): RowToken | undefined;
  /** Ends the text: frees the slot at once, and discards tokens that have not been taken. */
  abort(): void;
}

/**
 * How many of the most likely tokens a row needs log-probabilities for; undefined: none, not even for the chosen token.
 */
export const likelyOf = ({ topLogprobs, logprobs }: RowOptions): number | undefined =>
  topLogprobs ?? (logprobs ? 0 : undefined);

/** The implementation of a row, with the state that steps need. */
export class LiveRow implements PassRow, Row {
  readonly tokens: number[];
  readonly likely: number | undefined;
  readonly seed: number | undefined;
  /** Number of tokens in the prompt. */
  readonly prompt: number;
  /** Index in `tokens` of the token at position 0 of the slot; above 0 after the row has slid. */
  window = 0;
  /** Number of tokens from `window` on whose keys and values are in the cache. */
  read = 0;
  reused = 0;
  /** Whether no token has been processed yet, so that keys and values can be copied from another slot. */
  fresh = true;
  /**
   * Whether the row is longer than the block size, with `crop`: each step is a pass over its last tokens, without the
   * cache.
   */
  cropped = false;
  /** Whether the text has ended: nothing more is computed for it. */
  over = false;
  /** Whether the reader waits for a token. */
  wanted = false;
  /** Number of tokens for which noise was drawn. */
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
    /** Number of tokens still to generate. */
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

  /** The number that the function `tagged` gets for the row's tokens. */
  get tag(): number {
    return this.request.tag ?? 0;
  }
  /** The number of the prompt's tokens whose log-probabilities are needed. */
  get scored(): number {
    return this.request.promptLogprobs === undefined ? 0 : this.prompt - 1;
  }
  /** The number of tokens that are not in the cache yet. */
  get unread(): number {
    return this.tokens.length - this.window - this.read;
  }
  /** Position of the last token in the slot. */
  get position(): number {
    return this.tokens.length - 1 - this.window;
  }
  /** Whether the text has ended and its reader has taken all tokens. */
  get done(): boolean {
    return this.over && this.#queue.length === 0;
  }
  /** Whether the row's choices need noise from the host. */
  get noisy(): boolean {
    return (this.request.temperature ?? 1) > 0 && this.seed === undefined;
  }
  /** Draws noise for the next choice. */
  draw(into: Float32Array): void {
    if (this.noisy) this.noise.fill(into, this, this.drawn++);
  }
  /** Appends a token. */
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

  /** Waits for the next token. The result is `done` when the text has ended. */
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
  /** Called when a loop over the row is left. */
  return(): Promise<IteratorResult<RowToken, undefined>> {
    this.abort();
    return Promise.resolve({ value: undefined, done: true });
  }
  [Symbol.asyncIterator](): this {
    return this;
  }
}
