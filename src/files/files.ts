/**
 * Files that a save writes: whole, on the disk, and with errors that name them.
 *
 * Everything a checkpoint writes goes through one {@linkcode OpenFile}, so that a test can fill the disk.
 */
import { CheckpointError } from "../errors.ts";
import { reason } from "./reason.ts";
import { codeOf, system, type SystemFile } from "./system.ts";

/** What is used of an open file; a {@linkcode SystemFile} is one. */
export interface OutputFile {
  /** May take fewer bytes than there are; returns how many it took. */ write(bytes: Uint8Array): Promise<number>;
  /** Returns when the bytes are on the disk rather than in the system's memory. */ sync(): Promise<void>;
  /** Gives the file back to the system. */ close(): void;
}

/** Creates a file, or empties the one that is there. */
export type OpenFile = (path: string) => Promise<OutputFile>;

export const createFile: OpenFile = (path) => system.open(path, { write: true, create: true, truncate: true });

export async function writeAll(file: OutputFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

/** Writes `parts` one behind the other and waits until they are on the disk. */
export async function writeFile(
  path: string,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  open: OpenFile = createFile,
): Promise<void> {
  const file = await open(path);
  try {
    for await (const bytes of parts) await writeAll(file, bytes);
    await file.sync();
  } finally {
    file.close();
  }
}

/**
 * Writes a file beside `path`, waits until it is on the disk, and renames it: whoever looks finds the file that was there, or
 * all of the new one.
 *
 * @throws {CheckpointError} when it cannot be written; what was begun is removed
 */
export async function replaceFile(
  path: string,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  open?: OpenFile,
): Promise<void> {
  const beside = `${path}.new`;
  try {
    await writeFile(beside, parts, open);
    await system.rename(beside, path);
  } catch (error) {
    await system.remove(beside).catch(() => {});
    if (error instanceof TypeError) throw error; // not the disk's fault
    throw new CheckpointError(`Cannot write ${path}: ${reason(error)}`);
  }
  await syncDirectory(path.replace(/[^/\\]*$/, "") || ".");
}

export function writeJson(path: string, value: unknown, open?: OpenFile): Promise<void> {
  return writeFile(path, [new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n")], open);
}

/** Lets tasks run one after the other, in the order in which they were asked for. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `task` when those before it are done, however they ended. */
  take<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task, task);
    this.#last = result;
    return result;
  }
}

/** What `make` makes of something open, which belongs to it from then on; it is closed where `make` fails. */
export async function owned<R extends Disposable, T>(resource: R, make: (resource: R) => T | Promise<T>): Promise<T> {
  try {
    return await make(resource);
  } catch (error) {
    resource[Symbol.dispose]();
    throw error;
  }
}

/** A file that is read by ranges. Every read moves the file's only position, so reads take turns: two may be asked for at once. */
export class InputFile implements Disposable {
  readonly #file: SystemFile;
  readonly #turns = new Turns();

  private constructor(readonly path: string, readonly size: number, file: SystemFile) {
    this.#file = file;
  }

  /** @throws {CheckpointError} when the file is missing or unreadable, or stands in for another one */
  static async open(path: string): Promise<InputFile> {
    let file: SystemFile | undefined;
    try {
      file = await system.open(path);
      const input = new InputFile(path, file.statSync().size, file),
        head = new Uint8Array(Math.min(64, input.size));
      refuseStandIn(head.subarray(0, await input.fill(0, head)), path);
      return input;
    } catch (error) {
      file?.close();
      throw error instanceof CheckpointError ? error : new CheckpointError(`Cannot read ${path}: ${reason(error)}`);
    }
  }

  /** Reads from `at` until `bytes` is full or the file ends; returns how many were read. */
  fill(at: number, bytes: Uint8Array): Promise<number> {
    return this.#turns.take(async () => {
      let count = 0;
      try {
        await this.#file.seek(at, 0);
        while (count < bytes.length) {
          const more = await this.#file.read(bytes.subarray(count));
          if (more === null) break;
          count += more;
        }
      } catch (error) {
        throw new CheckpointError(`Cannot read ${this.path}: ${reason(error)}`);
      }
      return count;
    });
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * Refuses what is often downloaded instead of a file.
 *
 * @param head the file's first bytes
 * @throws {CheckpointError} when it is a Git LFS pointer or a web page
 */
function refuseStandIn(head: Uint8Array, path: string): void {
  const text = new TextDecoder().decode(head.subarray(0, 64)).trimStart();
  if (text.startsWith("version https://git-lfs")) {
    throw new CheckpointError(
      `${path} is a Git LFS pointer, which names the file and does not hold it\n` +
        "Fetch the file itself: run git lfs install and git lfs pull in its repository, or download it",
    );
  }
  if (/^<(!doctype|html|head|!--|\?xml)/i.test(text)) {
    throw new CheckpointError(
      `${path} is a web page, not the file that was asked for\n` +
        "Download the file itself: on Hugging Face's hub its address has /resolve/, where the page's has /blob/",
    );
  }
}

/**
 * All of a file.
 *
 * @param options.limit the most bytes that it may have
 * @throws {CheckpointError} when the file is missing, unreadable or larger, or stands in for another one
 */
export async function readBytes(path: string, { limit = Infinity } = {}): Promise<Uint8Array<ArrayBuffer>> {
  using file = await InputFile.open(path);
  if (file.size > limit) throw new CheckpointError(`${path} has ${file.size} bytes, and at most ${limit} are read`);
  const bytes = new Uint8Array(file.size);
  return bytes.subarray(0, await file.fill(0, bytes));
}

/** @throws {CheckpointError} when the file is missing, unreadable, or does not hold a JSON object */
export async function readJson(path: string): Promise<Record<string, unknown>> {
  const value = parseJson(await readBytes(path));
  if (isObject(value)) return value;
  throw new CheckpointError(`${path} is damaged: it does not hold a JSON object`);
}

/** The value of a JSON text; undefined where it is not one. (The parser's message quotes the text, which does not help.) */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

/** Whether a value that was read is an object with names, and not a list. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A new or renamed name survives a power cut only when its directory is on the disk too. */
export async function syncDirectory(path: string): Promise<void> {
  try {
    using directory = await system.open(path);
    await directory.sync();
  } catch {
    // Windows opens no directories, and keeps their order itself.
  }
}

export async function exists(path: string): Promise<boolean> {
  try {
    await system.lstat(path);
    return true;
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "")) return false;
    throw new CheckpointError(`Cannot look at ${path}: ${reason(error)}`);
  }
}
