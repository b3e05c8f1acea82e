import { DataError } from "../errors.ts";

/** What a text's special tokens are to `encode`, as in tiktoken. */
export interface EncodeOptions {
  /** Special tokens that the text may contain, and that become their ids. Default: none. */
  readonly allowedSpecial?: "all" | ReadonlySet<string>;
  /**
   * Special tokens that the text must not contain. Default: all that are not allowed. One that is neither allowed nor
   * disallowed is ordinary text: an empty set makes of `encode` what tiktoken calls `encode_ordinary`.
   */
  readonly disallowedSpecial?: "all" | ReadonlySet<string>;
}

/** Turns ids into text one by one. A character that several tokens make up comes with the last of them. */
export interface TokenDecoder {
  /**
   * Takes the next id.
   * @returns the text that has become certain: none, while a character is incomplete
   * @throws {DataError} when the id is outside the vocabulary
   */
  push(id: number): string;
  /** Gives what is left: U+FFFD where a character was begun and not completed; then a text may begin anew. */
  end(): string;
}

/** What a tokenizer says of chats, besides its tokens; it is saved with it. */
export interface ChatRoles {
  /** Special tokens by the names that transformers has for what they do: `bos_token`, `eos_token`, `pad_token`, … */
  readonly roles?: Readonly<Record<string, unknown>>;
  /** In Jinja. */
  readonly chatTemplate?: string;
}

/** Text to token ids and back: what training and sampling need to know of a vocabulary. */
export interface Tokenizer {
  /** One more than the greatest id. */
  readonly vocabSize: number;
  /**
   * Turns a text into ids.
   * @returns one id a token
   * @throws {DataError} when the text has something that no token stands for, or a special token that is not allowed
   */
  encode(text: string, options?: EncodeOptions): Int32Array<ArrayBuffer>;
  /**
   * The text of ids; bytes that are not UTF-8 give U+FFFD.
   *
   * @throws {DataError} when an id is outside the vocabulary
   */
  decode(ids: ArrayLike<number>): string;
  /** Decodes a stream of ids. */
  decoder(): TokenDecoder;
  /** Tokens that a text contains only where that is allowed, and their ids. */
  readonly specialTokens?: ReadonlyMap<string, number>;
  /**
   * How many bytes of a text, in UTF-8, became a token of this id; not there where tokens leave out white space.
   */
  lengthOf?(id: number): number;
  /**
   * The same tokenizer with more special tokens. Those that it does not have yet get the ids from `vocabSize` on.
   *
   * @param tokens none of them empty
   * @param chat what is saved with it, instead of what it has said so far
   * @throws {DataError} when the tokenizer is one of numbers, which takes no tokens
   */
  withSpecialTokens(tokens: readonly string[], chat?: ChatRoles): Tokenizer;
  /** The contents of a run's `vocabulary.json`, which `tokenizerFromJSON` reads. */
  toJSON(): Record<string, unknown>;
}

/**
 * Cuts a text at special tokens, as tiktoken does.
 *
 * @returns pieces of the text and special tokens, in turns
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
      `The text contains the special token ${token}: allow it or take it as ordinary text ` +
        "(--special_tokens=allow or text; in code, allowedSpecial or disallowedSpecial)",
    );
  }
  return splitAt(text, allowed);
}

/** Cuts a text at each of the tokens, the longest first where several begin; what is between them and the tokens take turns. */
export function splitAt(text: string, tokens: string[]): (readonly [part: string, isToken: boolean])[] {
  if (tokens.length === 0) return [[text, false]];
  const escaped = tokens.sort((a, b) => b.length - a.length).map((token) =>
    token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")
  );
  return text.split(new RegExp(`(${escaped.join("|")})`)).map((part, i) => [part, i % 2 === 1]);
}

/** Special tokens with those that are added, whose ids go on from `next`. @throws {DataError} when one is empty */
export function withTokens(
  special: ReadonlyMap<string, number>,
  tokens: readonly string[],
  next: number,
): Map<string, number> {
  const all = new Map(special);
  for (const token of tokens) {
    if (token === "") throw new DataError("A special token is empty, and would stand everywhere in a text");
    if (!all.has(token)) all.set(token, next++);
  }
  return all;
}

/** What `toJSON` says of chats, under transformers' names. */
export function chatJson(
  { roles, chatTemplate }: ChatRoles,
  before: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const special_tokens = roles && { ...before.special_tokens as object, ...roles };
  return { ...special_tokens && { special_tokens }, ...chatTemplate !== undefined && { chat_template: chatTemplate } };
}

/** Whether they are words, none of them empty or there twice. */
export function areWords(words: unknown): words is string[] {
  return Array.isArray(words) && words.length > 0 && new Set(words).size === words.length &&
    words.every((word) => typeof word === "string" && word !== "");
}

/** Whether they are special tokens as a vocabulary stores them: words, or none. */
export const areSpecial = (tokens: unknown): tokens is string[] =>
  areWords(tokens) || Array.isArray(tokens) && tokens.length === 0;

/** Of a stored vocabulary what it says of chats. */
export function chatOf(json: unknown): Record<string, unknown> {
  const { special_tokens, chat_template } = json as Record<string, unknown>;
  return {
    ...typeof special_tokens === "object" && special_tokens && { special_tokens },
    ...typeof chat_template === "string" && { chat_template },
  };
}

/** What a sample begins with where no text is given: a line end, as nanoGPT's, or token 0 where the vocabulary has none. */
export function beginning(tokenizer: Pick<Tokenizer, "encode">): Int32Array {
  let ids = new Int32Array();
  try {
    ids = tokenizer.encode("\n");
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
  }
  return ids.length > 0 ? ids : Int32Array.of(0);
}
