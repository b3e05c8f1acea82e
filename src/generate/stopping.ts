/** Where a generated sequence ends: at a token, at a text, or at its length. */
import type { TokenDecoder, Tokenizer } from "../tokenizer/tokenizer.ts";

/** `stop`: a stop token or a stop string came; `length`: it is as long as was asked for. */
export type FinishReason = "stop" | "length";

/** Where a text ends. */
export interface StoppingOptions {
  /** A token that ends a sequence, or several. It is given, as the last one, and is no part of the text. */
  readonly eosTokenId?: number | readonly number[];
  /**
   * Texts that end a sequence, wherever tokens begin and end: at the token that completes one, which is given as the last one.
   * The text ends before it, as in OpenAI's API. Those in the prompt don't count. Needs the tokenizer.
   */
  readonly stopStrings?: string | readonly string[];
  /** Turns tokens into text, for stop strings and the text of each token. */
  readonly tokenizer?: Pick<Tokenizer, "decoder" | "vocabSize">;
}

/** What a token means for its sequence. */
export interface Taken {
  /**
   * Where there is a tokenizer: the text that has become certain, without halves of characters, and without what may turn out
   * to begin a stop string. Put together, these are the sequence's text.
   */
  readonly text?: string;
  /** With the last token: why it is the last. */
  readonly finishReason?: FinishReason;
}

/** One sequence, token by token. */
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
   * @param isLast whether the sequence is as long as was asked for
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

/** Decodes what a model writes: an id that only pads its vocabulary is U+FFFD. */
export function modelDecoder(tokenizer: Pick<Tokenizer, "decoder" | "vocabSize">): TokenDecoder {
  const decoder = tokenizer.decoder();
  return {
    push: (id) => id < tokenizer.vocabSize ? decoder.push(id) : `${decoder.end()}\ufffd`,
    end: () => decoder.end(),
  };
}

/**
 * Decodes what is said in a chat: special tokens are no text of it, as with transformers' `skip_special_tokens`, for what was said is
 * encoded as text when the chat goes on. Where a stop string is written with one of them, they stay.
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

/** Looks for the first of some strings in a text that comes in pieces, and lets through what stands before it. */
export class StopStrings {
  /** Whether one was there. */
  found = false;
  #held = "";

  /** @param strings none of them empty */
  constructor(readonly strings: readonly string[]) {}

  /** Takes the next piece; returns what is certain to stand before a stop string, or to belong to none. */
  push(piece: string): string {
    if (this.found) return "";
    const text = this.#held + piece,
      ends = this.strings.map((string) => {
        const at = text.indexOf(string);
        return at < 0 ? { at, end: Infinity } : { at, end: at + string.length };
      });
    // The one that is complete first, wherever pieces begin and end; the longest of those that end there.
    const first = ends.reduce((a, b) => b.end < a.end || (b.end === a.end && b.at < a.at) ? b : a, {
      at: 0,
      end: Infinity,
    });
    this.found = first.end < Infinity;
    const end = this.found ? first.at : text.length - this.#unsure(text);
    this.#held = text.slice(end);
    return text.slice(0, end);
  }

  /** How long the end of the text is with which a stop string may begin. */
  #unsure(text: string): number {
    let longest = Math.max(0, ...this.strings.map((string) => Math.min(string.length - 1, text.length)));
    while (longest > 0 && !this.strings.some((string) => string.startsWith(text.slice(-longest)))) longest--;
    return longest;
  }

  /** What was held back, when no more comes. */
  end(): string {
    return this.found ? "" : this.#held;
  }
}
