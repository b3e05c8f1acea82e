import { DataError } from "../errors.ts";
import { Checksum } from "../files/checksum.ts";
import { reason } from "../files/reason.ts";
import type { SystemFile } from "../files/system.ts";
import { fill, openData } from "./text_file.ts";

/** A source of token ids: an `Int32Array` in memory, or a {@linkcode TokenFile}. */
export interface Tokens {
  /** Number of ids. */ readonly length: number;
  /** The ids from `begin` to before `end`, both inside the data. */ subarray(begin: number, end: number): Int32Array;
}

/** The number and a checksum of tokens, by which a resumed run checks that its data are unchanged. */
export interface TokensIdentity {
  /** Number of tokens. */ readonly length: number;
  /** Checksum of the ids, in hexadecimal. */ readonly checksum: string;
}

/** The checksum covers up to `WHOLE` tokens completely, and of more tokens `BLOCKS` evenly spaced blocks of `BLOCK`. */
const WHOLE = 2 ** 22, BLOCKS = 256, BLOCK = 4096;

/**
 * Computes the number and a checksum of tokens. If there are more than 4 Mi tokens, the checksum covers a sample of
 * them, so that only a few megabytes of a file are read.
 */
export function identify(tokens: Tokens): TokensIdentity {
  const { length } = tokens, whole = length <= WHOLE, checksum = new Checksum();
  for (let i = 0; i < (whole ? Math.ceil(length / BLOCK) : BLOCKS); i++) {
    const begin = whole ? i * BLOCK : Math.floor(i * (length - BLOCK) / (BLOCKS - 1));
    checksum.add(tokens.subarray(begin, Math.min(length, begin + BLOCK)));
  }
  return { length, checksum: `${checksum}` };
}

/** Type of the ids in a file: `uint16` as in nanoGPT, or `uint32` for a vocabulary of more than 65,536 tokens. */
export type TokenType = "uint16" | "uint32";

/** Bytes per id. */
export const tokenBytes = { uint16: 2, uint32: 4 } as const;

/** The smallest type that holds all ids below `vocabSize`. */
export function tokenType(vocabSize: number): TokenType {
  return vocabSize <= 2 ** 16 ? "uint16" : "uint32";
}

/**
 * A file of little-endian token ids without a header, such as nanoGPT's `train.bin` and `val.bin`. Only the ids of a
 * batch are read, so the file may be larger than memory.
 */
export class TokenFile implements Tokens, Disposable {
  readonly #file: SystemFile;

  private constructor(file: SystemFile, readonly path: string, readonly length: number, readonly type: TokenType) {
    this.#file = file;
  }

  /**
   * Opens a file of ids.
   * @param options.type type of the ids. Default: `uint16`
   * @throws {DataError} when the file cannot be read, is empty, or ends in the middle of an id
   */
  static open(path: string, { type = "uint16" }: { type?: TokenType } = {}): TokenFile {
    return openData(path, (file) => {
      const { size, isFile } = file.statSync(), bytes = tokenBytes[type];
      if (!isFile) throw new DataError(`${path} is not a file`);
      if (size === 0) throw new DataError(`${path} is empty`);
      if (size % bytes !== 0) {
        throw new DataError(
          `${path} is damaged: its ${size} bytes are not a multiple of ${bytes}, the size of a token`,
        );
      }
      return new TokenFile(file, path, size / bytes, type);
    });
  }

  /** Reads ids. @throws {DataError} when the file has become shorter, or cannot be read */
  subarray(begin: number, end: number): Int32Array<ArrayBuffer> {
    const ids = this.type === "uint16" ? new Uint16Array(end - begin) : new Int32Array(end - begin);
    let whole;
    try {
      whole = fill(this.#file, begin * ids.BYTES_PER_ELEMENT, new Uint8Array(ids.buffer));
    } catch (error) {
      throw new DataError(`Cannot read ${this.path}: ${reason(error)}`);
    }
    if (!whole) {
      throw new DataError(`${this.path} ends before token ${end}: it had ${this.length} tokens when it was opened`);
    }
    return ids instanceof Int32Array ? ids : Int32Array.from(ids);
  }

  /** Closes the file. */ [Symbol.dispose](): void {
    this.#file.close();
  }
}
