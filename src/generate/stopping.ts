/** The end of a generated sequence: at a token, at a stop string, or at its length. */
import type { TokenDecoder, Tokenizer } from "../tokenizer/tokenizer.ts";

/** Why a sequence ended. `stop`: at a stop token or a stop string; `length`: it has the requested length. */
export type FinishReason = "stop" | "length";

/** Where a text ends. */
export interface StoppingOptions {
  /**
   * The id, or ids, of tokens that end a sequence. Such a token is yielded as the last one, and is not part of the
   * text.
   */
  readonly eosTokenId?: number | readonly number[];
  /**
   * Strings that end a sequence. They need not begin or end at a token's border; the token that completes a string is
   * yielded as the last one. The text ends before the string, as in OpenAI's API. Strings in the prompt do not count.
   * Needs `tokenizer`.
   */
  readonly stopStrings?: string | readonly string[];
  /** Decodes tokens, for stop strings and for the text of each token. */
  readonly tokenizer?: Pick<Tokenizer, "decoder" | "vocabSize">;
}

/** What a token means for its sequence. */
export interface Taken {
  /**
   * The text that this token completes, if there is a tokenizer. Incomplete characters, and text that can be the
   * beginning of a stop string, are held back for a later token. All these texts together are the sequence's text.
   */
  readonly text?: string;
  /** Why the sequence ended; set with the last token. */
  readonly finishReason?: FinishReason;
}

/** Decides after each token of a sequence whether the sequence has ended, and decodes its text. */
export class Stopping {
  /** Whether the sequence is over. */
  over = false;
  readonly #ends: readonly number[];
  readonly #decoder: TokenDecoder | undefined;
  readonly #strings: StopStrings;

  constructor({ eosTokenId = [], stopStrings = [], tokenizer }: StoppingOptions) {
    this.#ends = typeof eosTokenId === "number" ? [eosTokenId] : eosTokenId;
    this.#decoder = tokenizer && modelDecoder(tokenizer);
    this.#strings = new StopStrings(typeof stopStrings === "string" ? [stopStrings] : stopStrings);
  }

  /**
   * Takes the next token.
   *
   * @param isLast whether the sequence has reached the requested length
   */
  take(id: number, isLast: boolean): Taken {
    const isEnd = this.#ends.includes(id);
    let text = isEnd ? "" : this.#strings.push(this.#decoder?.push(id) ?? "");
    if (isLast || isEnd) text += this.#strings.push(this.#decoder?.end() ?? "") + this.#strings.end();
    this.over = isLast || isEnd || this.#strings.found;
    return {
      ...(this.#decoder && { text }),
      ...(this.over && { finishReason: isEnd || this.#strings.found ? "stop" : "length" }),
    };
  }
}

/** A decoder for a model's tokens. Ids that only pad the model's vocabulary become U+FFFD. */
export function modelDecoder(tokenizer: Pick<Tokenizer, "decoder" | "vocabSize">): TokenDecoder {
  const decoder = tokenizer.decoder();
  return {
    push: (id) => id < tokenizer.vocabSize ? decoder.push(id) : `${decoder.end()}\ufffd`,
    end: () => decoder.end(),
  };
}

/**
 * A tokenizer that decodes the messages of a chat without special tokens, like transformers' `skip_special_tokens`. An
 * answer is encoded as plain text when the chat continues. If a stop string contains a special token, special tokens
 * are decoded.
 */
export function spoken(
  tokenizer: Tokenizer,
  stopStrings: string | readonly string[] = [],
): Pick<Tokenizer, "decoder" | "vocabSize"> {
  const special = tokenizer.specialTokens ?? new Map<string, number>(), ids = new Set(special.values());
  if ([stopStrings].flat().some((string) => [...special.keys()].some((token) => string.includes(token)))) {
    return tokenizer;
  }
  const { vocabSize } = tokenizer;
  const decoder = () => {
    const all = tokenizer.decoder();
    return { push: (id: number) => ids.has(id) ? "" : all.push(id), end: () => all.end() };
  };
  return { vocabSize, decoder };
}

/** Finds the first of several strings in a text that arrives in pieces, and returns the text before it. */
export class StopStrings {
  /** Whether one of the stop strings was found. */
  found = false;
  #held = "";

  /** @param strings none of them empty */
  constructor(readonly strings: readonly string[]) {}

  /** Takes the next piece. Returns the text that cannot be part of a stop string any more. */
  push(piece: string): string {
    if (this.found) return "";
    const text = this.#held + piece,
      ends = this.strings.map((string) => {
        const at = text.indexOf(string);
        return at < 0 ? { at, end: Infinity } : { at, end: at + string.length };
      });
    // The stop string that ends first in the text, so that the result does not depend on the pieces. If several end at
    // the same place: the longest.
    const first = ends.reduce((a, b) => b.end < a.end || (b.end === a.end && b.at < a.at) ? b : a, {
      at: 0,
      end: Infinity,
    });
    this.found = first.end < Infinity;
    const end = this.found ? first.at : text.length - this.#unsure(text);
    this.#held = text.slice(end);
    return text.slice(0, end);
  }

  /** Length of the longest suffix of the text with which a stop string begins. */
  #unsure(text: string): number {
    let longest = Math.max(0, ...this.strings.map((string) => Math.min(string.length - 1, text.length)));
    while (longest > 0 && !this.strings.some((string) => string.startsWith(text.slice(-longest)))) longest--;
    return longest;
  }

  /** The text that was held back; call it after the last piece. */
  end(): string {
    return this.found ? "" : this.#held;
  }
}
