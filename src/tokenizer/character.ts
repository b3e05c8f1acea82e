import { CheckpointError, DataError } from "../errors.ts";
import {
  areSpecial,
  chatJson,
  chatOf,
  type ChatRoles,
  type EncodeOptions,
  splitSpecial,
  type TokenDecoder,
  type Tokenizer,
  withTokens,
} from "./tokenizer.ts";

/**
 * A tokenizer with one token per character, as in nanoGPT's `data/shakespeare_char/prepare.py`. The vocabulary is the
 * set of a text's characters in the order of their code points. A character is a Unicode code point, as in Python, so
 * an emoji of one code point is one token, though it takes two units of a JavaScript string.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { CharacterTokenizer } from "./character.ts";
 *
 * const tokenizer = CharacterTokenizer.fromText("hello");
 * assertEquals(tokenizer.characters, ["e", "h", "l", "o"]);
 * assertEquals([...tokenizer.encode("hole")], [1, 3, 2, 0]);
 * assertEquals(tokenizer.decode([1, 0, 2, 2, 3]), "hello");
 * ```
 */
export class CharacterTokenizer implements Tokenizer {
  /** The character of each id. The ids of special tokens follow after these ids. */
  readonly characters: readonly string[];
  readonly specialTokens: ReadonlyMap<string, number>;
  readonly #tokens: readonly string[];
  readonly #more: Readonly<Record<string, unknown>>;
  /** The id of each code point; −1 if it is not in the vocabulary. */
  #ids: Int32Array;

  /**
   * Makes a tokenizer for given characters.
   *
   * @param characters distinct code points, each as a string; a character's index is its id
   * @param options.special special tokens, whose ids follow after the characters
   * @param options.json further fields for `toJSON`
   */
  constructor(
    characters: readonly string[],
    { special = [], json = {} }: { special?: readonly string[]; json?: Readonly<Record<string, unknown>> } = {},
  ) {
    const codes = characters.map((character) => character.codePointAt(0)!);
    this.characters = characters;
    this.specialTokens = withTokens(new Map(), special, characters.length);
    this.#tokens = [...characters, ...this.specialTokens.keys()];
    this.#more = json;
    this.#ids = new Int32Array(codes.reduce((highest, code) => Math.max(highest, code), -1) + 1).fill(-1);
    codes.forEach((code, id) => this.#ids[code] = id);
  }

  /** Makes a tokenizer with the characters that occur in a text. */
  static fromText(text: string): CharacterTokenizer {
    const characters = new CharacterSet();
    characters.add(text);
    return new CharacterTokenizer(characters.inOrder());
  }

  /**
   * Makes a tokenizer from the value that `toJSON` returned.
   *
   * @throws {CheckpointError} when it is not a character vocabulary
   */
  static fromJSON(json: unknown): CharacterTokenizer {
    const { type, characters, special = [] } = (json ?? {}) as Record<string, unknown>;
    const list = typeof characters === "string" ? [...characters] : [];
    if (type !== "character" || list.length === 0 || new Set(list).size !== list.length) {
      throw new CheckpointError(
        'Not a vocabulary: expected {"type":"character","characters":"…"} with distinct characters',
      );
    }
    if (areSpecial(special)) return new CharacterTokenizer(list, { special, json: chatOf(json) });
    throw new CheckpointError("Not a vocabulary: expected special to be a list of distinct tokens that are not empty");
  }

  get vocabSize(): number {
    return this.#tokens.length;
  }

  /** Encodes a text. */ encode(
    text: string,
    options: EncodeOptions = {},
  ): Int32Array<ArrayBuffer> {
    if (this.specialTokens.size === 0) return this.#encodeText(text);
    const parts = splitSpecial(text, this.specialTokens, options);
    return Int32Array.from(
      parts.flatMap(([part, isSpecial]) => isSpecial ? [this.specialTokens.get(part)!] : [...this.#encodeText(part)]),
    );
  }

  #encodeText(text: string): Int32Array<ArrayBuffer> {
    const ids = new Int32Array(text.length);
    let n = 0;
    for (let i = 0; i < text.length; i++) {
      const code = text.codePointAt(i)!;
      if (code > 0xffff) i++;
      const id = this.#ids[code] ?? -1;
      if (id < 0) throw this.#unknown(text);
      ids[n++] = id;
    }
    return ids.slice(0, n);
  }

  decode(ids: ArrayLike<number>): string {
    return Array.from(ids, (id) => {
      const token = this.#tokens[id];
      if (token === undefined) throw new DataError(`Token ${id} is outside the vocabulary of ${this.vocabSize}`);
      return token;
    }).join("");
  }

  lengthOf(id: number): number {
    return encoder.encode(this.decode([id])).length;
  }

  withSpecialTokens(tokens: readonly string[], chat: ChatRoles = {}): CharacterTokenizer {
    const special = withTokens(this.specialTokens, tokens, this.vocabSize);
    return new CharacterTokenizer(this.characters, {
      special: [...special.keys()],
      json: { ...this.#more, ...chatJson(chat, this.#more) },
    });
  }

  /** Decodes a stream of ids. Each id is decoded at once, because it is a whole character or special token. */
  decoder(): TokenDecoder {
    return { push: (id) => this.decode([id]), end: () => "" };
  }

  toJSON(): Record<string, unknown> {
    const special = [...this.specialTokens.keys()];
    return {
      type: "character",
      characters: this.characters.join(""),
      ...special.length > 0 && { special },
      ...this.#more,
    };
  }

  #unknown(text: string): DataError {
    const known = new Set(this.characters);
    const unknown = [...new Set(text)].filter((character) => !known.has(character));
    const named = unknown.slice(0, 8).map(visible).join(", ");
    const more = unknown.length > 8 ? ` and ${unknown.length - 8} more` : "";
    return new DataError(`Not in the vocabulary of ${this.vocabSize} characters: ${named}${more}`);
  }
}

const encoder = new TextEncoder();

/** Collects the characters that occur in one or more texts. */
export class CharacterSet {
  readonly #seen = new Uint8Array(0x110000);

  add(text: string): void {
    for (let i = 0; i < text.length; i++) {
      const code = text.codePointAt(i)!;
      if (code > 0xffff) i++; // it takes two units of the string
      this.#seen[code] = 1;
    }
  }
  /** The characters in the order of their code points. */
  inOrder(): string[] {
    const characters: string[] = [];
    this.#seen.forEach((present, code) => present && characters.push(String.fromCodePoint(code)));
    return characters;
  }
}

/**
 * A character for a message. An invisible character is shown as its code point, because JSON escapes only control
 * characters.
 */
export function visible(character: string): string {
  const hidden = /(?! )[\p{Cf}\p{Cn}\p{Co}\p{M}\p{Z}]/u.test(character);
  return hidden ? `"\\u{${character.codePointAt(0)!.toString(16)}}"` : JSON.stringify(character);
}
