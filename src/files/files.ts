/**
 * Functions that write files completely or not at all, sync them to the disk, and throw errors that name the file.
 *
 * All files of a checkpoint are created by one {@linkcode OpenFile}, so that a test can simulate a full disk.
 */
import { CheckpointError } from "../errors.ts";
import { reason } from "./reason.ts";
import { codeOf, system, type SystemFile } from "./system.ts";

/** An open file to write to, such as a {@linkcode SystemFile}. */
export interface OutputFile {
  /** Writes some of the bytes. Returns the number of bytes written, which may be less than `bytes.length`. */
  write(bytes: Uint8Array): Promise<number>;
  /** Waits until the bytes are on the disk, not only in the system's cache. */ sync(): Promise<void>;
  /** Closes the file. */ close(): void;
}

/** Creates a file, or empties an existing one. */
export type OpenFile = (path: string) => Promise<OutputFile>;

export const createFile: OpenFile = (path) => system.open(path, { write: true, create: true, truncate: true });

export async function writeAll(file: OutputFile, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
}

/** Writes `parts` in order and waits until they are on the disk. */
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
 * Replaces a file atomically: writes PATH.new, waits until it is on the disk, and renames it to `path`. A reader sees
 * either the old file or the complete new one.
 *
 * @throws {CheckpointError} when the file cannot be written; PATH.new is removed
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
    if (error instanceof TypeError) throw error; // `parts` is wrong; the disk has no error
    throw new CheckpointError(`Cannot write ${path}: ${reason(error)}`);
  }
  await syncDirectory(path.replace(/[^/\\]*$/, "") || ".");
}

export function writeJson(path: string, value: unknown, open?: OpenFile): Promise<void> {
  return writeFile(path, [new TextEncoder().encode(JSON.stringify(value, null, 2) + "\n")], open);
}

/** Runs tasks one after the other, in the order in which they were submitted. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `task` after all earlier tasks, whether they succeeded or failed. */
  take<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task, task);
    this.#last = result;
    return result;
  }
}

/** Passes `resource` to `make`, whose result then owns the resource. If `make` fails, the resource is disposed of. */
export async function owned<R extends Disposable, T>(resource: R, make: (resource: R) => T | Promise<T>): Promise<T> {
  try {
    return await make(resource);
  } catch (error) {
    resource[Symbol.dispose]();
    throw error;
  }
}

/** A file that is read in ranges. Calls may overlap: they are run in turn, because a file has only one position. */
export class InputFile implements Disposable {
  readonly #file: SystemFile;
  readonly #turns = new Turns();

  private constructor(readonly path: string, readonly size: number, file: SystemFile) {
    this.#file = file;
  }

  /** @throws {CheckpointError} when the file is missing, unreadable, a Git LFS pointer or a web page */
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

  /** Reads from position `at` until `bytes` is full or the file ends. @returns how many bytes were read */
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
 * Rejects files that are often downloaded by mistake.
 *
 * @param head the file's first bytes
 * @throws {CheckpointError} when the file is a Git LFS pointer or a web page
 */
function refuseStandIn(head: Uint8Array, path: string): void {
  const text = new TextDecoder().decode(head.subarray(0, 64)).trimStart();
  if (text.startsWith("version https://git-lfs")) {
    throw new CheckpointError(
      `${path} is a Git LFS pointer, not the file itself\n` +
        "Run git lfs install and git lfs pull in its repository, or download the file",
    );
  }
  if (/^<(!doctype|html|head|!--|\?xml)/i.test(text)) {
    throw new CheckpointError(
      `${path} is a web page, not the file itself\n` +
        "On Hugging Face's hub, the address of a file has /resolve/ instead of /blob/",
    );
  }
}

/**
 * Reads a whole file.
 *
 * @param options.limit the maximum size that is accepted, in bytes
 * @throws {CheckpointError} when the file is missing, unreadable, too large, a Git LFS pointer or a web page
 */
export async function readBytes(path: string, { limit = Infinity } = {}): Promise<Uint8Array<ArrayBuffer>> {
  using file = await InputFile.open(path);
  if (file.size > limit) throw new CheckpointError(`${path} has ${file.size} bytes, more than the limit of ${limit}`);
  const bytes = new Uint8Array(file.size);
  return bytes.subarray(0, await file.fill(0, bytes));
}

/**
 * Reads a JSON object from a file.
 * @throws {CheckpointError} when the file is missing, unreadable, or not a JSON object
 */
export async function readJson(path: string): Promise<Record<string, unknown>> {
  const value = parseJson(await readBytes(path));
  if (isObject(value)) return value;
  throw new CheckpointError(`${path} is damaged: it is not a JSON object`);
}

/** Parses JSON; undefined if it is not valid. The parser's error is dropped, because its message only quotes the text. */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

/** Whether a value is an object, and neither null nor an array. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Syncs a directory to the disk. Without this, a new or renamed file may be lost in a power failure. */
export async function syncDirectory(path: string): Promise<void> {
  try {
    using directory = await system.open(path);
    await directory.sync();
  } catch {
    // Windows cannot open a directory. Syncing is not needed there, because Windows keeps the order of new and renamed
    // files.
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
