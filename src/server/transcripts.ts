/** What the engine writes, as answers tell it: texts with the tokens that are theirs, in pieces and at once alike. */
import { modelDecoder, spoken } from "../generate/stopping.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { GenerateRequest, Generation, Piece, PieceToken } from "./engine_api.ts";
import type { Call } from "./routes.ts";

/** A token with its place in the text. */
export interface PlacedToken extends PieceToken {
  /** Where its text begins, in UTF-16 units of what was written. */
  readonly start: number;
}

/** What is new of a text. */
export interface Told {
  readonly text: string;
  readonly tokens: readonly PlacedToken[];
  readonly finish?: Piece["finish"];
}

/**
 * One text with its tokens: they are held back until their text is certain, and those of a stop string, or that end the text, are
 * no part of it. So an answer in pieces and one at once have the same tokens.
 */
export class Transcript {
  text = "";
  /** Of all that was written. */
  count = 0;
  finish: Piece["finish"];
  /** How many of the prompt's tokens were not computed anew. */
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
 * Queues several requests, or none of them.
 *
 * @throws what the engine throws: then those that it had taken are ended
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

/** What an answer says of its cost: tokens of the prompts, and all that were written, also those of texts that were not the best. */
export function usageOf(prompt_tokens: number, transcripts: readonly Transcript[]): Record<string, unknown> {
  const completion_tokens = transcripts.reduce((sum, { count }) => sum + count, 0);
  const cached_tokens = transcripts.reduce((most, { cached }) => Math.max(most, cached), 0);
  const details = { prompt_tokens_details: { cached_tokens }, completion_tokens_details: { reasoning_tokens: 0 } };
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens, ...details };
}

/** Pieces of several generations as they come, each with the number of its generation. */
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
