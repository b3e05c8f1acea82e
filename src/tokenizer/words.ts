/**
 * Tokens of a dataset's own, as nanoGPT trains on them: its meta.pkl names words of any length, or only how many ids there are.
 * Nothing is merged or looked for inside a word.
 */
import { CheckpointError, DataError } from "../errors.ts";
import { splitAt } from "./byte_pair.ts";
import type { TokenDecoder, Tokenizer } from "./tokenizer.ts";

/**
 * One token a word, or, without words, a number. Each is shown with a space after it, and a text is cut at white space; where
 * words themselves have white space in them, they stand side by side, and a text is cut into the longest that it begins with.
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
  /** Each id's word, where there are words. */
  readonly words: readonly string[] | undefined;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #space: string;

  /** Of different words, none of them empty; or of a number of ids. */
  constructor({ words, vocabSize = words?.length ?? 0 }: { words?: readonly string[]; vocabSize?: number }) {
    this.words = words;
    this.vocabSize = vocabSize;
    this.#ids = new Map(words?.map((word, id) => [word, id]));
    this.#space = words?.some((word) => /\s/.test(word)) ? "" : " ";
  }

  /**
   * Reads what `toJSON` gave.
   *
   * @throws {CheckpointError} when it is not a vocabulary of words or ids
   */
  static fromJSON({ type, words, vocab_size }: Record<string, unknown>): WordTokenizer {
    if (type === "words" && areWords(words)) return new WordTokenizer({ words });
    if (type === "ids" && isVocabSize(vocab_size)) return new WordTokenizer({ vocabSize: vocab_size });
    throw new CheckpointError(
      'Not a vocabulary: expected {"type":"words","words":[…]} or {"type":"ids","vocab_size":…}',
    );
  }

  /** As {@linkcode Tokenizer.encode}. */ encode(text: string): Int32Array<ArrayBuffer> {
    const words = this.#space ? text.split(/\s+/) : splitAt(text, [...this.#ids.keys()]).map(([part]) => part);
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

  toJSON(): Record<string, unknown> {
    return this.words ? { type: "words", words: this.words } : { type: "ids", vocab_size: this.vocabSize };
  }
}

/** Whether they are words, none of them empty or there twice. */
export function areWords(words: unknown): words is string[] {
  return Array.isArray(words) && words.length > 0 && new Set(words).size === words.length &&
    words.every((word) => typeof word === "string" && word !== "");
}

/** Whether ids below this number can be stored. */
export function isVocabSize(size: unknown): size is number {
  return Number.isSafeInteger(size) && Number(size) > 0 && Number(size) < 2 ** 31;
}
