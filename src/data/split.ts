import { DataError } from "../errors.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Tokens } from "./tokens.ts";

/** A text's tokens: what a model learns from, and what is held out to see how well it learns. */
export interface TokenSplits<T extends Tokens = Tokens> {
  /** To train on. */ train: T;
  /** To evaluate on. */ val: T;
}

/**
 * The first nine tenths of a text's characters, and the rest, as tokens: nanoGPT's `prepare.py`, which splits before it
 * encodes and counts code points.
 *
 * @param options.blockSize tokens of context; both parts must be longer
 * @throws {DataError} when a part is too short, or the tokenizer does not know a character
 */
export function splitTokens(
  text: string,
  tokenizer: Tokenizer,
  { blockSize, ...special }: { blockSize: number } & EncodeOptions,
): TokenSplits<Int32Array<ArrayBuffer>> {
  const n = walk(text).characters, cut = walk(text, Math.trunc(n * 0.9)).units;
  const train = tokenizer.encode(text.slice(0, cut), special), val = tokenizer.encode(text.slice(cut), special);
  if (Math.min(train.length, val.length) <= blockSize) {
    // A tenth, rounded up, must reach blockSize + 1.
    throw new DataError(
      `The text is too short for block_size=${blockSize}, which takes at least ${10 * blockSize + 1} characters, ` +
        `as the last tenth is held out for validation: it has ${n}`,
    );
  }
  return { train, val };
}

/** Goes over a text's first `most` characters. @returns how many there were, and how many of the string's 16-bit units they take */
function walk(text: string, most = Infinity): { characters: number; units: number } {
  let characters = 0, units = 0;
  for (; units < text.length && characters < most; characters++) units += text.codePointAt(units)! > 0xffff ? 2 : 1;
  return { characters, units };
}
