/**
 * Tokenizer for a dataset whose vocabulary is a list of words, or only a number of ids. nanoGPT trains on such
 * datasets, and its meta.pkl contains the vocabulary. Words are neither merged nor split.
 */
import { CheckpointError, DataError } from "../errors.ts";
import {
  areSpecial,
  areWords,
  chatJson,
  chatOf,
  type ChatRoles,
  type EncodeOptions,
  splitAt,
  splitSpecial,
  type TokenDecoder,
  type Tokenizer,
  withTokens,
} from "./tokenizer.ts";

/**
 * A tokenizer with one token per word or, for a vocabulary of numbers, per number. A text is split at white space, and
 * `decode` writes a space after each word. If the vocabulary has a word with white space, no spaces are written, and a
 * text is split into the longest words that match.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { WordTokenizer } from "./words.ts";
 *
 * const notes = new WordTokenizer({ words: ["C4", "D4", "rest"] });
 * assertEquals([...notes.encode("D4 rest C4")], [1, 2, 0]);
 * assertEquals(notes.decode([1, 2]), "D4 rest ");
 * assertEquals(new WordTokenizer({ vocabSize: 1000 }).decode([7, 999]), "7 999 ");
 * ```
 */
export class WordTokenizer implements Tokenizer {
  readonly vocabSize: number;
  /** The word of each id, including special tokens; undefined for a vocabulary of numbers. */
  readonly words: readonly string[] | undefined;
  /** Ids of the special tokens, which are recognised only if `encode` allows them. */
  readonly specialTokens: ReadonlyMap<string, number>;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #space: string;
  readonly #json: Readonly<Record<string, unknown>>;

  /**
   * Makes a tokenizer from words or from a number of ids.
   *
   * @param options.words distinct words that are not empty; a word's index is its id
   * @param options.vocabSize number of ids, for a vocabulary of numbers
   * @param options.special special tokens, whose ids follow after the words
   * @param options.json further fields for `toJSON`
   */
  constructor(
    { words, vocabSize = words?.length ?? 0, special = [], json = {} }: {
      words?: readonly string[];
      vocabSize?: number;
      special?: readonly string[];
      json?: Readonly<Record<string, unknown>>;
    },
  ) {
    const tokens = withTokens(new Map(), special, vocabSize);
    this.words = words && [...words, ...tokens.keys()];
    this.vocabSize = vocabSize + tokens.size;
    this.specialTokens = tokens;
    this.#ids = new Map(this.words?.map((word, id) => [word, id]));
    this.#space = words?.some((word) => /\s/.test(word)) ? "" : " ";
    this.#json = json;
  }

  /**
   * Makes a tokenizer from the value that `toJSON` returned.
   *
   * @throws {CheckpointError} when it is not a vocabulary of words or ids
   */
  static fromJSON(json: Record<string, unknown>): WordTokenizer {
    const { type, words, vocab_size, special = [] } = json;
    if (type === "words" && areWords(words) && areSpecial(special)) {
      if (new Set([...words, ...special]).size === words.length + special.length) {
        return new WordTokenizer({ words, special, json: chatOf(json) });
      }
    }
    if (type === "ids" && isVocabSize(vocab_size)) return new WordTokenizer({ vocabSize: vocab_size });
    throw new CheckpointError(
      'Not a vocabulary: expected {"type":"words","words":[…]} or {"type":"ids","vocab_size":…}',
    );
  }

  /** Encodes a text. */ encode(
    text: string,
    options: EncodeOptions = {},
  ): Int32Array<ArrayBuffer> {
    const words = splitSpecial(text, this.specialTokens, options).flatMap(([part, isSpecial]) => {
      if (isSpecial) return [part];
      return this.#space ? part.split(/\s+/) : splitAt(part, [...this.#ids.keys()]).map(([word]) => word);
    });
    return Int32Array.from(words.filter((word) => word !== ""), (word) => {
      const id = this.words ? this.#ids.get(word) : /^\d+$/.test(word) ? Number(word) : undefined;
      if (id !== undefined && id < this.vocabSize) return id;
      const expected = this.words
        ? `the ${this.vocabSize} words of the vocabulary`
        : `token ids from 0 to ${this.vocabSize - 1}`;
      throw new DataError(
        `${JSON.stringify(word)} is not a token: expected ${expected}${this.#space && ", with spaces between"}`,
      );
    });
  }

  decode(ids: ArrayLike<number>): string {
    return Array.from(ids, (id) => {
      if (Number.isInteger(id) && id >= 0 && id < this.vocabSize) return (this.words?.[id] ?? id) + this.#space;
      throw new DataError(`Token ${id} is outside the vocabulary of ${this.vocabSize}`);
    }).join("");
  }

  decoder(): TokenDecoder {
    return { push: (id) => this.decode([id]), end: () => "" };
  }

  withSpecialTokens(tokens: readonly string[], chat: ChatRoles = {}): WordTokenizer {
    if (!this.words) {
      throw new DataError("Cannot add special tokens to a vocabulary of numbers");
    }
    const { specialTokens } = this, words = this.words.slice(0, this.vocabSize - specialTokens.size);
    const special = [...specialTokens.keys(), ...tokens.filter((token) => !this.#ids.has(token))];
    return new WordTokenizer({ words, special, json: { ...this.#json, ...chatJson(chat, this.#json) } });
  }

  toJSON(): Record<string, unknown> {
    if (!this.words) return { type: "ids", vocab_size: this.vocabSize };
    const special = [...this.specialTokens.keys()], words = this.words.slice(0, this.vocabSize - special.length);
    return { type: "words", words, ...special.length > 0 && { special }, ...this.#json };
  }
}

/** Whether a value is a valid vocabulary size: an integer from 1 to below 2³¹. */
export function isVocabSize(size: unknown): size is number {
  return Number.isSafeInteger(size) && Number(size) > 0 && Number(size) < 2 ** 31;
}
