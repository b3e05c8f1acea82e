import { DataError } from "../errors.ts";

/** How `encode` treats special tokens in a text, as in tiktoken. */
export interface EncodeOptions {
  /** Special tokens that are encoded as special tokens. Default: none. */
  readonly allowedSpecial?: "all" | ReadonlySet<string>;
  /**
   * Special tokens that are an error if the text contains them. Default: all special tokens that are not allowed. A
   * special token that is neither allowed nor disallowed is encoded as ordinary text, so an empty set gives tiktoken's
   * `encode_ordinary`.
   */
  readonly disallowedSpecial?: "all" | ReadonlySet<string>;
}

/** Decodes ids one at a time. If a character consists of several tokens, it is returned with its last token. */
export interface TokenDecoder {
  /**
   * Takes the next id.
   * @returns the text that is now complete; it is empty while a character is incomplete
   * @throws {DataError} when the id is outside the vocabulary
   */
  push(id: number): string;
  /**
   * Ends the text. Returns U+FFFD if a character is incomplete, and otherwise an empty text. The decoder can then be
   * used for a new text.
   */
  end(): string;
}

/** Information about chats that is saved with a tokenizer. */
export interface ChatRoles {
  /** Special tokens by transformers' names of their roles: `bos_token`, `eos_token`, `pad_token`, … */
  readonly roles?: Readonly<Record<string, unknown>>;
  /** A chat template in Jinja. */
  readonly chatTemplate?: string;
}

/** Converts text to token ids and back. */
export interface Tokenizer {
  /** Number of ids, which is one more than the largest id. */
  readonly vocabSize: number;
  /**
   * Encodes a text.
   * @returns one id per token
   * @throws {DataError} when a part of the text has no token, or the text contains a special token that is not allowed
   */
  encode(text: string, options?: EncodeOptions): Int32Array<ArrayBuffer>;
  /**
   * Decodes ids to text. Bytes that are not UTF-8 become U+FFFD.
   *
   * @throws {DataError} when an id is outside the vocabulary
   */
  decode(ids: ArrayLike<number>): string;
  /** Makes a decoder for a stream of ids. */
  decoder(): TokenDecoder;
  /** Ids of the special tokens, which are recognised only if `encode` allows them. */
  readonly specialTokens?: ReadonlyMap<string, number>;
  /**
   * The number of UTF-8 bytes of the text that a token represents. The method is missing in tokenizers that drop white
   * space.
   */
  lengthOf?(id: number): number;
  /**
   * A copy of the tokenizer with more special tokens. New tokens get the ids from `vocabSize` on.
   *
   * @param tokens special tokens, which must not be empty
   * @param chat replaces the tokenizer's information about chats
   * @throws {DataError} when the vocabulary consists only of numbers, to which no tokens can be added
   */
  withSpecialTokens(tokens: readonly string[], chat?: ChatRoles): Tokenizer;
  /** A JSON description of the tokenizer, which is saved as a run's `vocabulary.json`; `tokenizerFromJSON` reads it. */
  toJSON(): Record<string, unknown>;
}

/**
 * Splits a text at special tokens, as tiktoken does.
 *
 * @returns the pieces of ordinary text and, between them, the special tokens
 * @throws {DataError} when the text contains a special token that is disallowed
 */
export function splitSpecial(
  text: string,
  special: ReadonlyMap<string, number>,
  { allowedSpecial = new Set(), disallowedSpecial = "all" }: EncodeOptions,
): (readonly [part: string, isSpecial: boolean])[] {
  const allowed = [...special.keys()].filter((token) => allowedSpecial === "all" || allowedSpecial.has(token));
  for (const token of disallowedSpecial === "all" ? special.keys() : disallowedSpecial) {
    if (disallowedSpecial === "all" && allowed.includes(token) || !text.includes(token)) continue;
    throw new DataError(
      `The text contains the special token ${token}; allow it, or encode it as ordinary text ` +
        "(--special_tokens=allow or text; in code, allowedSpecial or disallowedSpecial)",
    );
  }
  return splitAt(text, allowed);
}

/**
 * Splits a text at the given tokens. If several tokens begin at one position, the longest is used.
 * @returns the pieces of the text and, between them, the tokens
 */
export function splitAt(text: string, tokens: string[]): (readonly [part: string, isToken: boolean])[] {
  if (tokens.length === 0) return [[text, false]];
  const escaped = tokens.sort((a, b) => b.length - a.length).map((token) =>
    token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")
  );
  return text.split(new RegExp(`(${escaped.join("|")})`)).map((part, i) => [part, i % 2 === 1]);
}

/** Adds special tokens; their ids are `next`, `next` + 1 and so on. @throws {DataError} when a token is empty */
export function withTokens(
  special: ReadonlyMap<string, number>,
  tokens: readonly string[],
  next: number,
): Map<string, number> {
  const all = new Map(special);
  for (const token of tokens) {
    if (token === "") throw new DataError("A special token is empty; expected a text");
    if (!all.has(token)) all.set(token, next++);
  }
  return all;
}

/** The fields for chats in the result of `toJSON`, with transformers' names. */
export function chatJson(
  { roles, chatTemplate }: ChatRoles,
  before: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const special_tokens = roles && { ...before.special_tokens as object, ...roles };
  return { ...special_tokens && { special_tokens }, ...chatTemplate !== undefined && { chat_template: chatTemplate } };
}

/** Whether a value is a list of distinct, non-empty words. */
export function areWords(words: unknown): words is string[] {
  return Array.isArray(words) && words.length > 0 && new Set(words).size === words.length &&
    words.every((word) => typeof word === "string" && word !== "");
}

/** Whether a value is a valid list of special tokens in a stored vocabulary. The list may be empty. */
export const areSpecial = (tokens: unknown): tokens is string[] =>
  areWords(tokens) || Array.isArray(tokens) && tokens.length === 0;

/** The fields for chats in a stored vocabulary. */
export function chatOf(json: unknown): Record<string, unknown> {
  const { special_tokens, chat_template } = json as Record<string, unknown>;
  return {
    ...typeof special_tokens === "object" && special_tokens && { special_tokens },
    ...typeof chat_template === "string" && { chat_template },
  };
}

/**
 * The ids with which a sample begins if there is no prompt: a line end, as in nanoGPT, or token 0 if the vocabulary has
 * no line end.
 */
export function beginning(tokenizer: Pick<Tokenizer, "encode">): Int32Array {
  let ids = new Int32Array();
  try {
    ids = tokenizer.encode("\n");
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
  }
  return ids.length > 0 ? ids : Int32Array.of(0);
}
