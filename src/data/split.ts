import { DataError } from "../errors.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Tokens } from "./tokens.ts";

/** The tokens of a text in two parts: one for training, and one that is held out for evaluation. */
export interface TokenSplits<T extends Tokens = Tokens> {
  /** Tokens to train on. */ train: T;
  /** Tokens to evaluate on. */ val: T;
}

/**
 * Encodes the first 90 % of a text's characters for training and the rest for validation. Like nanoGPT's `prepare.py`,
 * it counts Unicode code points and splits the text before encoding it.
 *
 * @param options.blockSize context length in tokens; each part must be longer
 * @throws {DataError} when a part is too short, or the tokenizer has no token for a character
 */
export function splitTokens(
  text: string,
  tokenizer: Tokenizer,
  { blockSize, ...special }: { blockSize: number } & EncodeOptions,
): TokenSplits<Int32Array<ArrayBuffer>> {
  const n = walk(text).characters, cut = walk(text, Math.trunc(n * 0.9)).units;
  const train = tokenizer.encode(text.slice(0, cut), special), val = tokenizer.encode(text.slice(cut), special);
  if (Math.min(train.length, val.length) <= blockSize) {
    // The validation part, a tenth of the text rounded up, must have at least blockSize + 1 characters.
    throw new DataError(
      `The text is too short for block_size=${blockSize}: it has ${n} characters and needs at least ${
        10 * blockSize + 1
      }, because the last tenth is held out for validation`,
    );
  }
  return { train, val };
}

/**
 * Counts up to `most` code points of a text.
 * @returns their number, and the number of UTF-16 code units that they take
 */
function walk(text: string, most = Infinity): { characters: number; units: number } {
  let characters = 0, units = 0;
  for (; units < text.length && characters < most; characters++) units += text.codePointAt(units)! > 0xffff ? 2 : 1;
  return { characters, units };
}
