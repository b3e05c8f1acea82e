/**
 * Log-probabilities in the two formats of OpenAI's API: completions have parallel lists, chats have a list of objects
 * with bytes.
 */
import type { PromptScore, ScoredToken, ServedModel } from "./engine_api.ts";
import type { Schema } from "./fields.ts";
import { bytesOf, nameOf } from "./texts.ts";
import type { PlacedToken } from "./transcripts.ts";
import { modelDecoder } from "../generate/stopping.ts";

/** Replaces −Infinity, which JSON does not have, by −9999, as in vLLM. */
const finite = (logprob: number): number => logprob === -Infinity ? -9999 : logprob;

/** The format of completions. */
export interface LogprobLists {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  /** Where each token begins in the answer's text, in code points. */
  readonly text_offset: number[];
}
export const emptyLists = (): LogprobLists => ({ tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] });
export function append(to: LogprobLists, more: LogprobLists): void {
  to.tokens.push(...more.tokens);
  to.token_logprobs.push(...more.token_logprobs);
  to.top_logprobs.push(...more.top_logprobs);
  to.text_offset.push(...more.text_offset);
}

const points = (text: string): number => Array.from(text).length;

/** Makes the lists for one text, piece by piece. */
export class OlderLogprobs {
  /** Code points of the echoed prompt, and of the generated text up to `#units`. */
  #before = 0;
  #points = 0;
  #units = 0;

  constructor(readonly model: ServedModel) {}

  /**
   * The lists for a prompt that is echoed as `text`. Its first token has no log-probability, because nothing precedes
   * it.
   */
  prompt(ids: readonly number[], text: string, scores: readonly PromptScore[]): LogprobLists {
    const lists = emptyLists(), decoder = decodeStarts(this.model, ids);
    this.#before = points(text);
    if (text === "") return lists;
    ids.forEach((id, i) => {
      const score = scores[i - 1];
      lists.tokens.push(nameOf(this.model.tokenizer, id));
      lists.token_logprobs.push(score ? finite(score.logprob) : null);
      lists.top_logprobs.push(score ? this.#top(score, score.top) : null);
      lists.text_offset.push(decoder[i]);
    });
    return lists;
  }
  /** Returns the lists for new tokens. @param text everything generated so far, including the new tokens */
  tokens(text: string, tokens: readonly PlacedToken[]): LogprobLists {
    const lists = emptyLists();
    for (const { id, logprob = 0, top = [], start } of tokens) {
      this.#points += points(text.slice(this.#units, start));
      this.#units = start;
      lists.tokens.push(nameOf(this.model.tokenizer, id));
      lists.token_logprobs.push(finite(logprob));
      lists.top_logprobs.push(this.#top({ id, logprob }, top));
      lists.text_offset.push(this.#before + this.#points);
    }
    return lists;
  }
  /** The most likely tokens and the given token. */
  #top(token: ScoredToken, top: readonly ScoredToken[]): Record<string, number> {
    const all = [...top, token], { tokenizer } = this.model;
    return Object.fromEntries(all.map(({ id, logprob }) => [nameOf(tokenizer, id), finite(logprob)]));
  }
}

/** Where each token begins in the decoded text, in code points. */
function decodeStarts(model: ServedModel, ids: readonly number[]): number[] {
  const starts: number[] = [], decoder = modelDecoder(model.tokenizer);
  let at = 0;
  for (const id of ids) {
    starts.push(at);
    at += points(decoder.push(id));
  }
  return starts;
}

/** The format of chats. */
export interface TokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
  readonly top_logprobs: readonly Omit<TokenLogprob, "top_logprobs">[];
}
export function chatLogprobs({ tokenizer }: ServedModel, tokens: readonly PlacedToken[]): TokenLogprob[] {
  const of = ({ id, logprob }: ScoredToken) => ({
    token: nameOf(tokenizer, id),
    logprob: finite(logprob),
    bytes: bytesOf(tokenizer, id),
  });
  return tokens.map(({ id, logprob = 0, top = [] }) => ({ ...of({ id, logprob }), top_logprobs: top.map(of) }));
}

export const olderSchema: Schema = {
  type: ["object", "null"],
  required: ["tokens", "token_logprobs", "top_logprobs", "text_offset"],
  properties: {
    tokens: { type: "array", items: { type: "string" } },
    token_logprobs: { type: "array", items: { type: ["number", "null"] } },
    top_logprobs: {
      type: "array",
      items: { type: ["object", "null"], additionalProperties: { type: "number" } },
    },
    text_offset: { type: "array", items: { type: "integer" } },
  },
};
const single = {
  token: { type: "string" },
  logprob: { type: "number" },
  bytes: { type: "array", items: { type: "integer" } },
};
export const chatSchema: Schema = {
  type: "object",
  required: ["token", "logprob", "bytes", "top_logprobs"],
  properties: { ...single, top_logprobs: { type: "array", items: { type: "object", properties: single } } },
};
