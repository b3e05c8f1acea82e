/** Finds the elements of a JSON array without reading all of it into memory. `JSON.parse` then checks each element. */
import { DataError } from "../errors.ts";
import type { FindEnd } from "./pieces.ts";

const OPENING = new Set([..."[{"].map((sign) => sign.charCodeAt(0)));
const CLOSING = new Set([..."]}"].map((sign) => sign.charCodeAt(0)));
const QUOTE = 34, COMMA = 44, BACKSLASH = 92;
const isSpace = (byte: number) => byte === 32 || byte === 10 || byte === 13 || byte === 9;

/**
 * Cuts a JSON array into pieces: after its `[`, after the comma or `]` that follows each element, and at the end of the
 * file. `depth` is the nesting depth at the end of the last piece: 1 inside the array, 0 after it.
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

/** The first character that is not white space; undefined if there is none. */
export function firstSign(bytes: Uint8Array): string | undefined {
  const byte = bytes.find((byte) => !isSpace(byte));
  return byte === undefined ? undefined : String.fromCharCode(byte);
}

/** @throws {DataError} when `text`, which follows the array, is more than white space */
export function checkNothingAfter(text: string, where: string): void {
  if (text.trim()) throw new DataError(`${where}: text after the end of the array`);
}
