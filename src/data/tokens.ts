import { DataError } from "../errors.ts";
import { Checksum } from "../files/checksum.ts";
import { reason } from "../files/reason.ts";
import type { SystemFile } from "../files/system.ts";
import { fill, openData } from "./text_file.ts";

/** Token ids that batches are taken from: an `Int32Array` in memory, or a {@linkcode TokenFile}. */
export interface Tokens {
  /** How many there are. */ readonly length: number;
  /** The ids from `begin` to before `end`, both inside the data. */ subarray(begin: number, end: number): Int32Array;
}

/** What tells one text's tokens from another's: how many there are, and a checksum, in hexadecimal. */
export interface TokensIdentity {
  /** How many tokens there are. */ readonly length: number;
  /** Of the ids. */ readonly checksum: string;
}

/** Up to how many tokens all count; of more, blocks that lie evenly between the first and the last. */
const WHOLE = 2 ** 22, BLOCKS = 256, BLOCK = 4096;

/** What tells ids from others; of a large file a few megabytes are read. */
export function identify(tokens: Tokens): TokensIdentity {
  const { length } = tokens, whole = length <= WHOLE, checksum = new Checksum();
  for (let i = 0; i < (whole ? Math.ceil(length / BLOCK) : BLOCKS); i++) {
    const begin = whole ? i * BLOCK : Math.floor(i * (length - BLOCK) / (BLOCKS - 1));
    checksum.add(tokens.subarray(begin, Math.min(length, begin + BLOCK)));
  }
  return { length, checksum: `${checksum}` };
}

/** How ids are kept in a file: nanoGPT's `uint16`, or `uint32` where there are more than 65,536 of them. */
export type TokenType = "uint16" | "uint32";

/** Bytes of an id. */
export const tokenBytes = { uint16: 2, uint32: 4 } as const;

/** The smaller type that holds ids below `vocabSize`. */
export function tokenType(vocabSize: number): TokenType {
  return vocabSize <= 2 ** 16 ? "uint16" : "uint32";
}

/**
 * A file of token ids, little-endian and nothing else: nanoGPT's `train.bin` and `val.bin`. Of the file only what a batch takes
 * is read, so it may be larger than memory.
 */
export class TokenFile implements Tokens, Disposable {
  readonly #file: SystemFile;

  private constructor(file: SystemFile, readonly path: string, readonly length: number, readonly type: TokenType) {
    this.#file = file;
  }

  /**
   * Opens a file of ids.
   * @param options.type of the ids; `uint16` unless given
   * @throws {DataError} when the file cannot be read, is empty, or ends within an id
   */
  static open(path: string, { type = "uint16" }: { type?: TokenType } = {}): TokenFile {
    return openData(path, (file) => {
      const { size, isFile } = file.statSync(), bytes = tokenBytes[type];
      if (!isFile) throw new DataError(`${path} is no file`);
      if (size === 0) throw new DataError(`${path} is empty`);
      if (size % bytes !== 0) {
        throw new DataError(`${path} is damaged: ${size} bytes are no whole number of tokens of ${bytes} bytes`);
      }
      return new TokenFile(file, path, size / bytes, type);
    });
  }

  /** Reads ids; throws {@linkcode DataError} when the file has become shorter, or cannot be read. */
  subarray(begin: number, end: number): Int32Array<ArrayBuffer> {
    const ids = this.type === "uint16" ? new Uint16Array(end - begin) : new Int32Array(end - begin);
    let whole;
    try {
      whole = fill(this.#file, begin * ids.BYTES_PER_ELEMENT, new Uint8Array(ids.buffer));
    } catch (error) {
      throw new DataError(`Cannot read ${this.path}: ${reason(error)}`);
    }
    if (!whole) throw new DataError(`${this.path} ends before token ${end}: it had ${this.length} before`);
    return ids instanceof Int32Array ? ids : Int32Array.from(ids);
  }

  /** Closes the file. */ [Symbol.dispose](): void {
    this.#file.close();
  }
}
