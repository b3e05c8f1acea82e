/**
 * A text file that may be larger than memory and is read in ranges of bytes. Like Python's text mode, it decodes UTF-8
 * and converts every kind of line end to "\n". A byte-order mark is not part of the text: positions are counted from
 * the byte after it.
 */
import { Breather } from "../loop/breather.ts";
import { DataError } from "../errors.ts";
import { reason } from "../files/reason.ts";
import { CharacterSet } from "../tokenizer/character.ts";
import { CUT } from "../tokenizer/patterns.ts";
import { system, type SystemFile } from "../files/system.ts";

/** Bytes read at a time to count characters; the maximum number of bytes searched for a place to cut. */
const BLOCK = 1 << 22, WIDEST = 1 << 26;

/** The result of counting a text's characters. */
export interface TextCounts {
  /** Number of code points; a CR LF counts as one. */
  readonly characters: number;
  /** Byte at which character number `int(0.9 · characters)` begins, where nanoGPT's validation part starts. */
  readonly cut: number;
  /** The code points that occur, in ascending order; only if requested. */
  readonly vocabulary?: readonly string[];
}

/** An open text file. */
export class TextFile implements Disposable {
  readonly #file: SystemFile;
  /** Length of the byte-order mark, in bytes. */
  readonly #mark: number;
  readonly modified: number;

  /** @param size size of the text, in bytes */
  private constructor(
    file: SystemFile,
    readonly path: string,
    readonly size: number,
    options: { modified: number; mark: number },
  ) {
    this.#file = file;
    this.#mark = options.mark;
    this.modified = options.modified;
  }

  /** @throws {DataError} when the file cannot be read, or is empty */
  static open(path: string): TextFile {
    return openData(path, (file) => {
      const { size, isDirectory, mtime } = file.statSync();
      if (isDirectory) throw new DataError(`${path} is a folder, not a text file`);
      const start = new Uint8Array(3), mark = markLength(start.subarray(0, file.readSync(start) ?? 0));
      if (size === mark) throw new DataError(`The text file ${path} is empty`);
      return new TextFile(file, path, size - mark, { mark, modified: Number(mtime ?? 0) });
    });
  }

  /** The bytes from `begin` to before `end`. @throws {DataError} when the file has become shorter */
  bytes(begin: number, end: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(end - begin);
    if (fill(this.#file, this.#mark + begin, bytes)) return bytes;
    throw new DataError(`${this.path} became shorter while it was read`);
  }

  /**
   * The bytes from `begin` to before `end` as text.
   * @throws {DataError} when they are not UTF-8; the message says where
   */
  text(begin: number, end: number): string {
    return decodeUtf8(this.bytes(begin, end), { name: this.path, begin: this.#mark + begin });
  }

  /**
   * Counts the text's characters, and yields the number of bytes read so far.
   *
   * @param options.vocabulary whether to collect the characters that occur
   * @throws {DataError} when characters are collected and the text is not UTF-8
   */
  async *count({ vocabulary = false } = {}): AsyncGenerator<number, TextCounts, void> {
    const before: number[] = [], breather = new Breather(), seen = vocabulary ? new CharacterSet() : undefined;
    let characters = 0, last = 0;
    for (let begin = 0, end; begin < this.size; begin = end) {
      end = seen ? this.nextCut(begin + BLOCK, this.size) : Math.min(this.size, begin + BLOCK);
      const bytes = this.bytes(begin, end);
      before.push(characters, begin, last);
      characters += countCharacters(bytes, last);
      last = bytes.at(-1)!;
      seen?.add(this.text(begin, end));
      yield end;
      await breather.breathe();
    }
    const cut = this.#byteOf(Math.trunc(characters * 0.9), before);
    return { characters, cut, vocabulary: seen?.inOrder() };
  }

  /**
   * The first position at or after `from` where cutting the text changes the tokens of no tokenizer; `end` if there is
   * no such position before `end`.
   *
   * @param tokens special tokens that must not be cut either
   * @throws {DataError} when the first 64 MiB have no such position
   */
  nextCut(from: number, end: number, tokens: readonly string[] = []): number {
    for (let width = 1 << 12; from < end; width *= 4) {
      if (width > WIDEST) {
        throw new DataError(
          `${this.path} cannot be cut: there is no space or line end in the ${WIDEST} bytes after byte ${from}`,
        );
      }
      const bytes = this.bytes(from, Math.min(end, from + width));
      const first = bytes.findIndex((byte) => (byte & 0xc0) !== 0x80); // the first byte of a character
      if (first >= 0) {
        // `stream: true` leaves out a character that is incomplete at the end of the bytes.
        const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(first), { stream: true });
        const match = CUT.exec(text);
        if (match) {
          const cut = from + first + new TextEncoder().encode(text.slice(0, match.index + match[0].length)).length;
          return cut < end && this.#isWithin(tokens, cut) ? this.nextCut(cut, end, tokens) : cut;
        }
      }
      if (from + width >= end) break;
    }
    return end;
  }

  /** Whether one of the tokens begins before `place` and ends after it. */
  #isWithin(tokens: readonly string[], place: number): boolean {
    if (tokens.length === 0) return false;
    // The maximum number of bytes of a token in the file, in which a "\n" of the token may be a CR LF.
    const width = 4 * Math.max(...tokens.map((token) => token.length));
    const decode = (begin: number, end: number) =>
      new TextDecoder().decode(this.bytes(Math.max(0, begin), Math.min(this.size, end))).replace(/\r\n?/g, "\n");
    const before = decode(place - width, place), text = before + decode(place, place + width);
    return tokens.some((token) => {
      const at = text.indexOf(token, Math.max(0, before.length - token.length + 1));
      return at >= 0 && at < before.length;
    });
  }

  /**
   * The byte at which character number `n` begins.
   * @param before three numbers for each block: the number of characters before the block, the position of the block's
   * first byte, and the value of the byte before the block
   */
  #byteOf(n: number, before: readonly number[]): number {
    let i = 0;
    while (i + 3 < before.length && before[i + 3] <= n) i += 3;
    const bytes = this.bytes(before[i + 1], Math.min(this.size, before[i + 4] ?? this.size));
    let count = before[i], last = before[i + 2];
    for (let at = 0; at < bytes.length; at++) {
      count += begins(bytes[at], last);
      if (count > n) return before[i + 1] + at;
      last = bytes[at];
    }
    return this.size;
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * Opens a file and passes it to `make`. The result of `make` then owns the file; if `make` throws, the file is closed.
 * @throws {DataError} when the file cannot be read, or when `make` throws
 */
export function openData<T>(path: string, make: (file: SystemFile) => T): T {
  let file: SystemFile | undefined;
  try {
    file = system.openSync(path);
    return make(file);
  } catch (error) {
    file?.close();
    throw error instanceof DataError ? error : new DataError(`Cannot read ${path}: ${reason(error)}`);
  }
}

/** Reads the file from position `begin` until `bytes` is full. @returns false if the file ends before that */
export function fill(file: SystemFile, begin: number, bytes: Uint8Array): boolean {
  file.seekSync(begin, 0);
  for (let at = 0, count; at < bytes.length; at += count) {
    count = file.readSync(bytes.subarray(at));
    if (count === null) return false;
  }
  return true;
}

/** 1 if a byte begins a character, otherwise 0. The LF of a CR LF does not begin a character. */
function begins(byte: number, last: number): number {
  return Number((byte & 0xc0) !== 0x80 && !(byte === 10 && last === 13));
}

function countCharacters(bytes: Uint8Array, last: number): number {
  let n = 0;
  for (let i = 0; i < bytes.length; i++) {
    n += begins(bytes[i], last);
    last = bytes[i];
  }
  return n;
}

const MARK = [0xef, 0xbb, 0xbf];

/** Length of the UTF-8 byte-order mark at the start of `bytes`: 3, or 0 if there is none. */
export function markLength(bytes: Uint8Array): number {
  return MARK.every((byte, i) => bytes[i] === byte) ? MARK.length : 0;
}

/**
 * Decodes UTF-8 and converts every kind of line end to "\n".
 *
 * @param options.name name of the file, for messages
 * @param options.begin position of the bytes in the file, for messages
 * @throws {DataError} when the bytes are not UTF-8
 */
export function decodeUtf8(bytes: Uint8Array<ArrayBuffer>, { name, begin }: { name: string; begin: number }): string {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    // Decode with replacement characters and encode again: the first byte that differs is the first invalid byte.
    const mended = new TextEncoder().encode(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
    const place = begin + mended.findIndex((byte, i) => byte !== bytes[i]);
    throw new DataError(`${name} is not UTF-8 text: the first wrong byte is near byte ${place}`);
  }
  return text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
}
