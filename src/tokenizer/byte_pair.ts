import { DataError } from "../errors.ts";
import { mergePairs } from "./merge.ts";
import {
  chatJson,
  type ChatRoles,
  type EncodeOptions,
  splitAt,
  splitSpecial,
  type TokenDecoder,
  type Tokenizer,
  withTokens,
} from "./tokenizer.ts";

/**
 * The tables of a byte-pair tokenizer. Byte sequences are strings: each byte is the character with that code.
 */
export interface BytePairTables {
  /** The bytes of each id. An unused id is undefined and decoded as U+FFFD. */
  readonly tokens: readonly (string | undefined)[];
  /**
   * The rank of each merge. A key consists of the left side, {@linkcode BETWEEN}, and the right side. If this field is
   * missing, the vocabulary defines the merges, as in tiktoken: two neighbours can be merged if their bytes together are
   * a token, and the token's id is the rank.
   */
  readonly merges?: ReadonlyMap<string, number>;
  /** Cuts a text into pieces, which are encoded independently. It must be global, and its matches cover every text. */
  readonly pattern: RegExp;
  /** Special tokens, which are recognised only if `encode` allows them. */
  readonly special: ReadonlyMap<string, number>;
  /** Added tokens, which are always recognised. */
  readonly added?: ReadonlyMap<string, number>;
  /** The value that `toJSON` returns. */
  readonly json: Record<string, unknown>;
}

/** Separates the two sides of a merge in a key of `merges`. No byte is written as this character. */
export const BETWEEN = "\u0100";

/** U+FFFD in UTF-8. */
const REPLACEMENT = "\xef\xbf\xbd";

const NONE: ReadonlyMap<string, number> = new Map();

/** The maximum number of pieces in the cache of encoded pieces, and the maximum length of such a piece in characters. */
const REMEMBERED = 1 << 17, LONGEST = 64;

/**
 * Byte-level byte-pair encoding, as in GPT-2 and tiktoken: a pattern cuts a text into pieces, and the UTF-8 bytes of
 * each piece are merged. `loadTokenizer` loads such a tokenizer. Any text can be encoded; a lone surrogate becomes
 * U+FFFD.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { BytePairTokenizer } from "./byte_pair.ts";
 *
 * const tokens = ["a", "b", "ab", "\xc3", "\xa9", "\xc3\xa9"]; // the last token is é
 * const pattern = /\p{L}+|\P{L}+/gu, special = new Map([["<end>", 6]]);
 * const tokenizer = new BytePairTokenizer({ tokens: [...tokens, "<end>"], pattern, special, json: {} });
 * assertEquals([...tokenizer.encode("abéb")], [2, 5, 1]);
 * assertEquals([...tokenizer.encode("a<end>", { allowedSpecial: "all" })], [0, 6]);
 * const decoder = tokenizer.decoder();
 * assertEquals([2, 3, 4].map((id) => decoder.push(id)), ["ab", "", "é"]);
 * ```
 */
export class BytePairTokenizer implements Tokenizer {
  readonly #ids = new Map<string, number>();
  /** Cache of encoded pieces. */
  readonly #known = new Map<string, number | Int32Array>();

  /** Makes a tokenizer from its tables. */ constructor(readonly tables: BytePairTables) {
    // If the vocabulary defines the merges, special and added tokens are excluded: bytes must not be merged to them.
    const reserved = new Set(tables.merges ? [] : [...tables.special.values(), ...this.addedTokens.values()]);
    tables.tokens.forEach((bytes, id) => bytes !== undefined && !reserved.has(id) && this.#ids.set(bytes, id));
  }

  get vocabSize(): number {
    return this.tables.tokens.length;
  }
  /** Ids of the special tokens, which are recognised only if `encode` allows them. */
  get specialTokens(): ReadonlyMap<string, number> {
    return this.tables.special;
  }
  /** Ids of the added tokens, which are always recognised. */
  get addedTokens(): ReadonlyMap<string, number> {
    return this.tables.added ?? NONE;
  }

  /** Encodes a text. */ encode(
    text: string,
    options: EncodeOptions = {},
  ): Int32Array<ArrayBuffer> {
    const { special } = this.tables;
    const ids = new IdList(text.length >> 1);
    for (const [part, isSpecial] of splitSpecial(text.toWellFormed(), special, options)) {
      if (isSpecial) ids.push(special.get(part)!);
      else {
        // Special tokens are found before added tokens, as in Hugging Face's tokenizers.
        for (const [text, isAdded] of splitAt(part, [...this.addedTokens.keys()])) {
          if (isAdded) ids.push(this.addedTokens.get(text)!);
          else this.#encodeText(text, ids);
        }
      }
    }
    return ids.toArray();
  }

  decode(ids: ArrayLike<number>): string {
    let length = 0, at = 0;
    for (let i = 0; i < ids.length; i++) length += this.#bytesOf(ids[i]).length;
    const bytes = new Uint8Array(length);
    for (let i = 0; i < ids.length; i++) {
      const token = this.#bytesOf(ids[i]);
      for (let k = 0; k < token.length; k++) bytes[at++] = token.charCodeAt(k);
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }

  decoder(): TokenDecoder {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => decoder.decode(Uint8Array.from(this.#bytesOf(id), (c) => c.charCodeAt(0)), { stream: true }),
      end: () => decoder.decode(),
    };
  }

  lengthOf(id: number): number {
    return this.#bytesOf(id).length;
  }

  withSpecialTokens(tokens: readonly string[], chat: ChatRoles = {}): BytePairTokenizer {
    const { json, special, added = NONE } = this.tables, more = tokens.filter((token) => !added.has(token));
    const all = withTokens(special, more, this.vocabSize), bytes = [...this.tables.tokens], list = [];
    for (const [content, id] of all) {
      if (special.has(content)) continue;
      bytes[id] = byteString(content);
      list.push({ id, content, special: true, lstrip: false, rstrip: false, single_word: false });
    }
    const known = json.added_tokens as readonly unknown[] ?? [];
    const added_tokens = known.length + list.length > 0 ? { added_tokens: [...known, ...list] } : {};
    const tables = { ...this.tables, tokens: bytes, special: all };
    return new BytePairTokenizer({ ...tables, json: { ...json, ...added_tokens, ...chatJson(chat, json) } });
  }

  /** A description of the tokenizer: the name of a known encoding, or else the vocabulary and merges. */
  toJSON(): Record<string, unknown> {
    return this.tables.json;
  }

  #bytesOf(id: number): string {
    const bytes = this.tables.tokens[id];
    if (bytes !== undefined) return bytes;
    if (Number.isInteger(id) && id >= 0 && id < this.vocabSize) return REPLACEMENT;
    throw new DataError(`Token ${id} is outside the vocabulary of ${this.vocabSize}`);
  }

  /** Encodes a text without special tokens. */
  #encodeText(text: string, ids: IdList): void {
    const { pattern } = this.tables, known = this.#known;
    pattern.lastIndex = 0;
    for (let start = 0, end; pattern.test(text); start = end) { // unlike `exec`, `test` does not allocate
      end = pattern.lastIndex;
      const piece = text.slice(start, end), found = known.get(piece) ?? this.#encodePiece(piece);
      if (typeof found === "number") ids.push(found);
      else for (let i = 0; i < found.length; i++) ids.push(found[i]);
    }
  }

  #encodePiece(piece: string): number | Int32Array {
    const bytes = byteString(piece), { merges } = this.tables, ids = this.#ids;
    const rank = merges
      ? (start: number, middle: number, end: number) =>
        merges.get(bytes.slice(start, middle) + BETWEEN + bytes.slice(middle, end))
      : (start: number, _: number, end: number) => ids.get(bytes.slice(start, end));
    let found = merges ? undefined : ids.get(bytes);
    if (found === undefined) {
      const starts = mergePairs(bytes.length, rank), parts = new Int32Array(starts.length - 1);
      for (let i = 0; i < parts.length; i++) {
        const part = bytes.slice(starts[i], starts[i + 1]), id = ids.get(part);
        if (id === undefined) {
          throw new DataError(`No token for byte ${part.charCodeAt(0)} of ${quote(piece)}`);
        }
        parts[i] = id;
      }
      if (parts.length > 1) return this.#remember(piece, parts);
      found = parts[0];
    }
    return this.#remember(piece, found);
  }

  #remember<T extends number | Int32Array>(piece: string, ids: T): T {
    if (piece.length > LONGEST) return ids;
    if (this.#known.size >= REMEMBERED) this.#known.clear();
    this.#known.set(` ${piece}`.slice(1), ids); // a copy, because V8's substrings keep the whole text in memory
    return ids;
  }
}

const encoder = new TextEncoder();

/** A text's UTF-8 bytes as a string, in which each byte is the character with that code. */
export function byteString(text: string): string {
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x7f]*$/.test(text)) return text;
  const bytes = encoder.encode(text);
  if (bytes.length < 1000) return String.fromCharCode(...bytes);
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""); // a single call of fromCharCode would have too many arguments
}

function quote(piece: string): string {
  return JSON.stringify(piece.length > 20 ? `${piece.slice(0, 20)}…` : piece);
}

/** A growing list of ids. */
class IdList {
  #ids: Int32Array<ArrayBuffer>;
  #length = 0;

  constructor(expected: number) {
    this.#ids = new Int32Array(expected + 16);
  }

  push(id: number): void {
    if (this.#length === this.#ids.length) {
      const more = new Int32Array(2 * this.#ids.length);
      more.set(this.#ids);
      this.#ids = more;
    }
    this.#ids[this.#length++] = id;
  }

  toArray(): Int32Array<ArrayBuffer> {
    return this.#ids.slice(0, this.#length);
  }
}
