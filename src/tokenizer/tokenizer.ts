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
  /** The contents of a run's `vocabulary.json`, which `tokenizerFromJSON` reads. */
  toJSON(): Record<string, unknown>;
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
