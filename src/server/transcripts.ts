/** Assigns tokens to the text of an answer, in the same way for streamed and for complete answers. */
import { modelDecoder, spoken } from "../generate/stopping.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { GenerateRequest, Generation, Piece, PieceToken } from "./engine_api.ts";
import type { Call } from "./routes.ts";

/** A token with its place in the text. */
export interface PlacedToken extends PieceToken {
  /** Where the token begins in the generated text, in UTF-16 units. */
  readonly start: number;
}

/** The new part of a text. */
export interface Told {
  readonly text: string;
  readonly tokens: readonly PlacedToken[];
  readonly finish?: Piece["finish"];
}

/**
 * Collects an answer's text and tokens. A token is held back until the text contains its first character. So tokens of
 * a stop string, and the token that ends the text, are left out, as in an answer that is not streamed.
 */
export class Transcript {
  text = "";
  /** Number of generated tokens. */
  count = 0;
  finish: Piece["finish"];
  /** Number of the prompt's tokens that were taken from the cache. */
  cached = 0;
  /** Sum of the log-probabilities of all tokens. */
  logprob = 0;
  readonly #decoder;
  #decoded = 0;
  #held: PlacedToken[] = [];

  constructor(tokenizer: Tokenizer, { spoken: chat = false, stop }: Pick<GenerateRequest, "spoken" | "stop">) {
    this.#decoder = modelDecoder(chat ? spoken(tokenizer, stop) : tokenizer);
  }
  push({ tokens, text, finish, cached = 0 }: Piece): Told {
    this.cached += cached;
    this.count += tokens.length;
    this.text += text;
    this.finish = finish;
    for (const token of tokens) {
      this.#held.push({ ...token, start: this.#decoded });
      this.#decoded += this.#decoder.push(token.id).length;
      this.logprob += token.logprob ?? 0;
    }
    const all = finish === "length", certain = this.#held.findIndex(({ start }) => start >= this.text.length);
    const told = this.#held.splice(0, all || certain < 0 ? Infinity : certain);
    return { text, tokens: told, ...finish && { finish } };
  }
}

/**
 * Queues several requests, or none if one is refused.
 *
 * @throws what the engine throws, after aborting the requests that were already queued
 */
export function generateAll({ served, signal, key }: Call, requests: readonly GenerateRequest[]): Generation[] {
  const taken: Generation[] = [], ended = new AbortController(), either = AbortSignal.any([signal, ended.signal]);
  try {
    for (const request of requests) {
      taken.push(served.engine.generate({ ...request, ...key !== undefined && { key } }, either));
    }
  } catch (error) {
    ended.abort();
    for (const { pieces, promptLogprobs } of taken) {
      promptLogprobs?.catch(() => {});
      pieces[Symbol.asyncIterator]().return?.()?.catch(() => {});
    }
    throw error;
  }
  return taken;
}

/**
 * The `usage` of an answer. `completion_tokens` counts all generated tokens, including the texts that `best_of`
 * discarded.
 */
export function usageOf(prompt_tokens: number, transcripts: readonly Transcript[]): Record<string, unknown> {
  const completion_tokens = transcripts.reduce((sum, { count }) => sum + count, 0);
  const cached_tokens = transcripts.reduce((most, { cached }) => Math.max(most, cached), 0);
  const details = { prompt_tokens_details: { cached_tokens }, completion_tokens_details: { reasoning_tokens: 0 } };
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens, ...details };
}

/** Yields the pieces of several generations as they arrive, each with the index of its generation. */
export async function* merged(generations: readonly Generation[]): AsyncGenerator<[number, readonly Piece[]]> {
  const iterators = generations.map(({ pieces }) => pieces[Symbol.asyncIterator]());
  const next = (i: number) => iterators[i].next().then((result) => ({ i, result }));
  const waiting = new Map(iterators.map((_, i) => [i, next(i)]));
  try {
    while (waiting.size > 0) {
      const { i, result } =
        await (waiting.size === 1 ? waiting.values().next().value! : Promise.race(waiting.values()));
      if (result.done) {
        waiting.delete(i);
        continue;
      }
      waiting.set(i, next(i));
      yield [i, result.value];
    }
  } finally {
    for (const promise of waiting.values()) promise.catch(() => {});
    for (const iterator of iterators) iterator.return?.()?.catch(() => {});
  }
}
