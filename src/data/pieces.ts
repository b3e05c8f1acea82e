/**
 * A file that may be larger than memory, cut into the pieces that its rows stand in: lines, records of comma-separated values, or
 * the elements of a JSON array. Only the piece at hand is in memory. Cuts are found among the bytes, since in UTF-8 no byte of a
 * longer character is one of the signs that they depend on.
 */
import { DataError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { reason } from "../files/reason.ts";
import { system, type SystemFile, type SystemFileInfo } from "../files/system.ts";
import { markLength } from "./text_file.ts";

/** A part of the file. */
export interface Piece {
  /** Valid until the next piece is asked for. */
  readonly bytes: Uint8Array;
  /** The line on which the piece begins, from 1. */
  readonly line: number;
}

/**
 * Finds where a piece ends. It remembers where in a piece it stands, so that nothing is looked through twice.
 *
 * @param bytes the piece from its begin, and what follows
 * @param from up to where it was called for before
 * @param last whether the file ends with these bytes
 * @returns the place after the piece's end; −1 where that is not there yet
 */
export type FindEnd = (bytes: Uint8Array, from: number, last: boolean) => number;

/** The longest piece, and what is read at once, in bytes. */
export const LONGEST = 2 ** 26;
const BLOCK = 2 ** 18;

/** The pieces of a file. @throws {DataError} when it cannot be read, has a piece that is too long, or changes meanwhile */
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
      throw new DataError(`${path}, line ${line}: longer than ${LONGEST} bytes, the most that a row may have`);
    }
    if (buffer.length - end < BLOCK) {
      const room = from + BLOCK > buffer.length / 2 ? new Uint8Array(2 * buffer.length) : buffer;
      room.set(buffer.subarray(begin, end));
      [buffer, begin, end] = [room, 0, from];
    }
    const count = await data.read(buffer.subarray(end, end + BLOCK));
    last = count === 0;
    if (last) data.checkUnchanged(); // before what is cut off there is read
    end += count;
  }
}

/** A file that is read from its begin to its end. */
export class DataFile implements Disposable {
  readonly #file: SystemFile;
  readonly #info: SystemFileInfo;
  readonly #turns = new Turns();

  private constructor(readonly path: string, file: SystemFile, info: SystemFileInfo) {
    this.#file = file;
    this.#info = info;
  }

  /** @throws {DataError} when it is not there, is a folder, or may not be read */
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

  /** Reads what comes next. @returns how many bytes: fewer than there is room for only at the end of the file */
  async read(bytes: Uint8Array): Promise<number> {
    try {
      let at = 0;
      for (let count; at < bytes.length && (count = await this.#file.read(bytes.subarray(at))); at += count);
      return at;
    } catch (error) {
      throw new DataError(`Cannot read ${this.path}: ${reason(error)}`);
    }
  }

  /** The bytes from `begin` to before `end`; may be asked for while others are read. @throws {DataError} when they are not there any more */
  slice(begin: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#turns.take(async () => { // a file has one position
      const bytes = new Uint8Array(end - begin);
      await this.#file.seek(begin, 0);
      if (await this.read(bytes) === bytes.length) return bytes;
      throw new DataError(`${this.path} has become shorter while it was read`);
    });
  }

  /** @throws {DataError} when the file has another size or time of change than when it was opened */
  checkUnchanged(): void {
    const { size, mtime } = this.#file.statSync();
    if (size === this.#info.size && Number(mtime) === Number(this.#info.mtime)) return;
    throw new DataError(`${this.path} changed while it was read: start again when nothing writes to it any more`);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Lines, with their ends. */
export const lineEnd: FindEnd = (bytes, from, last) => {
  const at = bytes.indexOf(10, from);
  return at >= 0 ? at + 1 : last ? bytes.length : -1;
};
