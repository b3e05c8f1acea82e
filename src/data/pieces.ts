/**
 * Cuts a file, which may be larger than memory, into pieces of one row each: lines, CSV records, or the elements of a
 * JSON array. Only the current piece is in memory. Cuts are found in the undecoded bytes: in UTF-8, no byte of a
 * multi-byte character equals an ASCII character such as a comma or a line end.
 */
import { DataError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { reason } from "../files/reason.ts";
import { system, type SystemFile, type SystemFileInfo } from "../files/system.ts";
import { markLength } from "./text_file.ts";

/** A piece of a file. */
export interface Piece {
  /** The piece's bytes: a view that is valid until the next piece is read. */
  readonly bytes: Uint8Array;
  /** Number of the line on which the piece begins, from 1. */
  readonly line: number;
}

/**
 * Finds the end of a piece. It keeps its state between calls, so that no byte is examined twice.
 *
 * @param bytes the bytes from the start of the piece
 * @param from position up to which an earlier call has searched for this end
 * @param last whether the file ends with these bytes
 * @returns position after the end of the piece; −1 if more bytes are needed
 */
export type FindEnd = (bytes: Uint8Array, from: number, last: boolean) => number;

/** The maximum length of a piece, in bytes. */
export const LONGEST = 2 ** 26;
/** Bytes read at a time. */
const BLOCK = 2 ** 18;

/**
 * The pieces of a file.
 * @throws {DataError} when the file cannot be read, has a piece that is too long, or changes while it is read
 */
export async function* pieces(path: string, findEnd: FindEnd): AsyncGenerator<Piece> {
  using data = await DataFile.open(path);
  let buffer = new Uint8Array(2 * BLOCK), end = await data.read(buffer.subarray(0, BLOCK)), last = end === 0;
  let begin = markLength(buffer.subarray(0, end)), from = 0, line = 1;
  while (true) {
    const found = findEnd(buffer.subarray(begin, end), from, last);
    if (found > 0) {
      const bytes = buffer.subarray(begin, begin + found);
      yield { bytes, line };
      for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) line++;
      begin += found;
      from = 0;
      continue;
    }
    if (last) break;
    from = end - begin;
    if (from > LONGEST) {
      throw new DataError(`${path}, line ${line}: a row is longer than the limit of ${LONGEST} bytes`);
    }
    if (buffer.length - end < BLOCK) {
      const room = from + BLOCK > buffer.length / 2 ? new Uint8Array(2 * buffer.length) : buffer;
      room.set(buffer.subarray(begin, end));
      [buffer, begin, end] = [room, 0, from];
    }
    const count = await data.read(buffer.subarray(end, end + BLOCK));
    last = count === 0;
    if (last) data.checkUnchanged(); // before the last piece is parsed: a file being written is not reported as damaged
    end += count;
  }
}

/** An open file. Detects whether the file changes while it is read. */
export class DataFile implements Disposable {
  readonly #file: SystemFile;
  readonly #info: SystemFileInfo;
  readonly #turns = new Turns();

  private constructor(readonly path: string, file: SystemFile, info: SystemFileInfo) {
    this.#file = file;
    this.#info = info;
  }

  /** @throws {DataError} when the file does not exist, is a folder, or may not be read */
  static async open(path: string): Promise<DataFile> {
    let file: SystemFile | undefined;
    try {
      file = await system.open(path);
      const info = file.statSync();
      if (info.isDirectory) throw new DataError(`${path} is a folder, not a file with rows`);
      return new DataFile(path, file, info);
    } catch (error) {
      file?.close();
      throw error instanceof DataError ? error : new DataError(`Cannot read ${path || "''"}: ${reason(error)}`);
    }
  }

  get size(): number {
    return this.#info.size;
  }

  /** Reads the next bytes. @returns how many bytes were read: fewer than `bytes.length` only at the end of the file */
  async read(bytes: Uint8Array): Promise<number> {
    try {
      let at = 0;
      for (let count; at < bytes.length && (count = await this.#file.read(bytes.subarray(at))); at += count);
      return at;
    } catch (error) {
      throw new DataError(`Cannot read ${this.path}: ${reason(error)}`);
    }
  }

  /** The bytes from `begin` to before `end`. Calls may overlap. @throws {DataError} when the file has become shorter */
  slice(begin: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#turns.take(async () => { // one call at a time, because a file has only one position
      const bytes = new Uint8Array(end - begin);
      await this.#file.seek(begin, 0);
      if (await this.read(bytes) === bytes.length) return bytes;
      throw new DataError(`${this.path} became shorter while it was read`);
    });
  }

  /** @throws {DataError} when the file's size or modification time differ from when it was opened */
  checkUnchanged(): void {
    const { size, mtime } = this.#file.statSync();
    if (size === this.#info.size && Number(mtime) === Number(this.#info.mtime)) return;
    throw new DataError(`${this.path} changed while it was read; start again when no program writes to it`);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Cuts a file into lines, each with its line end. */
export const lineEnd: FindEnd = (bytes, from, last) => {
  const at = bytes.indexOf(10, from);
  return at >= 0 ? at + 1 : last ? bytes.length : -1;
};
