/** The elements of a JSON array, found without reading the whole of it into memory. What they say, `JSON.parse` judges. */
import { DataError } from "../errors.ts";
import type { FindEnd } from "./pieces.ts";

const OPENING = new Set([..."[{"].map((sign) => sign.charCodeAt(0)));
const CLOSING = new Set([..."]}"].map((sign) => sign.charCodeAt(0)));
const QUOTE = 34, COMMA = 44, BACKSLASH = 92;
const isSpace = (byte: number) => byte === 32 || byte === 10 || byte === 13 || byte === 9;

/**
 * Cuts after the `[` of the array, after the comma or `]` that follows each of its elements, and at the end of the file; `depth` is
 * that at the end of a piece: 1 inside the array, 0 after it.
 */
export class ArrayCuts {
  depth = 0;
  #inText = false;
  #escaped = false;

  readonly findEnd: FindEnd = (bytes, from, last) => {
    for (let at = from; at < bytes.length; at++) {
      const byte = bytes[at];
      if (this.#inText) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === BACKSLASH) this.#escaped = true;
        else if (byte === QUOTE) this.#inText = false;
      } else if (byte === QUOTE) this.#inText = true;
      else if (OPENING.has(byte)) {
        if (this.depth++ === 0) return at + 1;
      } else if (CLOSING.has(byte)) {
        if (--this.depth === 0) return at + 1;
      } else if (byte === COMMA && this.depth === 1) return at + 1;
    }
    return last ? bytes.length : -1;
  };
}

/** What a file's bytes begin with, white space left out; undefined where there is nothing else. */
export function firstSign(bytes: Uint8Array): string | undefined {
  const byte = bytes.find((byte) => !isSpace(byte));
  return byte === undefined ? undefined : String.fromCharCode(byte);
}

/** @throws {DataError} for what stands after the array */
export function checkNothingAfter(text: string, where: string): void {
  if (text.trim()) throw new DataError(`${where}: text after the end of the array`);
}
