/**
 * Stores clients' files. Each file is named by its id in the folder `files`; the client's file name is only a label and
 * never used as a path.
 */
import { createFile } from "../files/files.ts";
import { builtin, system } from "../files/system.ts";
import type * as fs from "node:fs";
import { ApiError, DiskFull, invalid, isFull, notFound } from "./errors.ts";
import { removeAll } from "./job_folder.ts";
import { formParts, partText } from "./multipart.ts";
import { newId, now, type Page, type Store, type StoredFile } from "./store.ts";

/** Maximum number of bytes of a file, and of all files of a key. */
const MOST_BYTES = 512 * 2 ** 20, MOST_OF_KEY = 2 * 2 ** 30;
/** Maximum number of bytes of a form in addition to the file. */
const FORM_BYTES = 64 * 1024;
/** Valid purposes of files. */
export const PURPOSES: readonly string[] = ["fine-tune", "assistants", "batch", "user_data", "evals"];
/** Limits of the time after which a file expires, in seconds. */
export const LEAST_EXPIRY = 3600, MOST_EXPIRY = 2_592_000;

export class Files {
  /** Uploads in progress. */
  readonly #coming = new Set<{ readonly owner: string; bytes: number }>();

  constructor(readonly folder: string, readonly store: Store) {}

  /** Creates the folder, and removes files that interrupted uploads left. */
  async open(): Promise<void> {
    await system.mkdir(this.folder, { recursive: true });
    const known = new Set(this.store.allFiles().map((file) => this.#name(file)));
    for await (const { name } of system.readDir(this.folder)) {
      if (!known.has(name)) await system.remove(`${this.folder}/${name}`);
    }
  }

  #name({ id, ending }: Pick<StoredFile, "id" | "ending">): string {
    return `${id}.${ending}`;
  }
  path(file: Pick<StoredFile, "id" | "ending">): string {
    return `${this.folder}/${this.#name(file)}`;
  }

  /** Returns a key's file. @throws {ApiError} 404 if the key has no file with this id */
  async find(id: string, owner: string, param: string | null = null): Promise<StoredFile> {
    await this.#expire();
    const file = this.store.file(id, owner);
    if (file) return file;
    throw notFound(
      `The file '${id.slice(0, 80)}' does not exist or you do not have access to it`,
      "file_not_found",
      param,
    );
  }
  async list(owner: string, page: Page, purpose?: string): Promise<[StoredFile[], boolean]> {
    await this.#expire();
    return this.store.files(owner, page, purpose);
  }
  async remove(file: StoredFile): Promise<void> {
    this.store.removeFile(file.id);
    await removeAll(this.path(file));
  }
  async #expire(): Promise<void> {
    const time = now();
    for (const file of this.store.allFiles()) {
      if (file.expires !== null && file.expires <= time) await this.remove(file);
    }
  }

  /** Moves files into the folder, and adds them to the database in one transaction with the changes by `then`. */
  async adopt(
    owner: string,
    files: readonly { readonly name: string; readonly path: string; readonly bytes: number }[],
    then: (ids: string[]) => void,
  ): Promise<void> {
    const stored = files.map(({ name, bytes }): StoredFile => ({
      ...{ id: newId("file-"), owner, bytes, created: now(), filename: name, ending: "bin" },
      ...{ purpose: "fine-tune-results", expires: null },
    }));
    for (const [i, { path }] of files.entries()) await system.rename(path, this.path(stored[i]));
    this.store.together(() => {
      for (const file of stored) this.store.addFile(file);
      then(stored.map(({ id }) => id));
    });
  }

  /**
   * Stores an upload. The file is streamed to the disk, and appears only when it is complete.
   *
   * @throws {ApiError} if a field is missing, the file is empty or too large, or the key's storage is full
   */
  async upload(request: Request, owner: string): Promise<StoredFile> {
    if (Number(request.headers.get("content-length") ?? 0) > MOST_BYTES + FORM_BYTES) throw tooLarge();
    const id = newId("file-"), partial = `${this.folder}/${id}.part`, texts = new Map<string, string>();
    let file: { readonly filename: string; readonly bytes: number; readonly first: number | undefined } | undefined;
    const coming = { owner, bytes: 0 };
    this.#coming.add(coming);
    try {
      for await (const part of formParts(request)) {
        const { name, filename } = part;
        if (name === "file" && filename !== undefined) {
          if (file) throw invalid("file", "file: only one file can be uploaded at a time");
          file = { filename: filename.slice(0, 255), ...await this.#write(partial, part.body, coming) };
        } else texts.set(name, await partText(part, 1024));
      }
      const { purpose, expires } = fieldsOf(texts);
      if (!file) throw invalid("file", "Missing required parameter: file", "missing_required_parameter");
      if (file.bytes === 0) throw invalid("file", "file: the file is empty");
      const { filename, bytes, first } = file, ending = endingOf(filename, first), created = now();
      const stored = { id, owner, bytes, created, filename, ending, purpose, expires };
      await system.rename(partial, this.path(stored));
      this.store.addFile(stored);
      return stored;
    } catch (error) {
      await removeAll(partial);
      throw error;
    } finally {
      this.#coming.delete(coming);
    }
  }

  /** Bytes that are left of a key's storage. Its files, its uploads in progress and its jobs' copies of files count. */
  left(owner: string): number {
    let used = this.store.usedBy(owner);
    for (const coming of this.#coming) if (coming.owner === owner) used += coming.bytes;
    return MOST_OF_KEY - used;
  }
  /** @throws {ApiError} 413, naming the parameter, if less than `bytes` is left of a key's storage */
  checkLeft(owner: string, param: string, bytes = 0): void {
    const left = this.left(owner);
    if (left >= bytes) return;
    const message = `${param}: your files, with the copies for your unfinished jobs, would have ` +
      `${MOST_OF_KEY - left + bytes} bytes; a key has at most ${MOST_OF_KEY}. Delete files, or cancel jobs`;
    throw new ApiError(413, message, { code: "storage_limit_exceeded", param });
  }

  /** Writes an upload to the disk. @returns the number of bytes, and the first byte that is not white space */
  async #write(path: string, body: AsyncIterable<Uint8Array>, coming: { readonly owner: string; bytes: number }) {
    let bytes = 0, first: number | undefined;
    const output = await createFile(path).catch((error) => {
      throw diskError(error);
    });
    try {
      for await (const chunk of body) {
        coming.bytes = bytes += chunk.length;
        if (bytes > MOST_BYTES) throw tooLarge();
        this.checkLeft(coming.owner, "file");
        first ??= chunk.find((byte) => byte > 0x20 && byte !== 0xef && byte !== 0xbb && byte !== 0xbf);
        for (let at = 0; at < chunk.length;) {
          at += await output.write(chunk.subarray(at)).catch((error) => {
            throw diskError(error);
          });
        }
      }
      await output.sync().catch((error) => {
        throw diskError(error);
      });
    } finally {
      output.close();
    }
    return { bytes, first };
  }
}

const tooLarge = () =>
  new ApiError(413, `The file is larger than the limit of ${MOST_BYTES} bytes`, {
    code: "file_too_large",
    param: "file",
  });

const diskError = (error: unknown): Error => isFull(error) ? new DiskFull() : error as Error;

function fieldsOf(texts: ReadonlyMap<string, string>): { purpose: string; expires: number | null } {
  const purpose = texts.get("purpose");
  if (purpose === undefined) {
    throw invalid("purpose", "Missing required parameter: purpose", "missing_required_parameter");
  }
  if (!PURPOSES.includes(purpose)) {
    throw invalid("purpose", `purpose: expected ${PURPOSES.join(", ")}, got '${purpose.slice(0, 80)}'`);
  }
  const anchor = texts.get("expires_after[anchor]"), seconds = texts.get("expires_after[seconds]");
  const known = ["purpose", "expires_after[anchor]", "expires_after[seconds]"];
  const stray = texts.keys().find((name) => !known.includes(name))?.slice(0, 80);
  if (stray !== undefined) throw invalid(stray, `Unknown parameter ${stray}`, "unknown_parameter");
  if (anchor === undefined && seconds === undefined) return { purpose, expires: null };
  if (anchor !== "created_at") throw invalid("expires_after.anchor", "expires_after.anchor: expected created_at");
  const after = /^\d{1,9}$/.test(seconds ?? "") ? Number(seconds) : NaN;
  if (after >= LEAST_EXPIRY && after <= MOST_EXPIRY) return { purpose, expires: now() + after };
  throw invalid(
    "expires_after.seconds",
    `expires_after.seconds: expected a whole number from ${LEAST_EXPIRY} to ${MOST_EXPIRY}`,
  );
}

/** The format of a file: by its name's ending, or else JSON lines if it begins with `{`, or else text. */
function endingOf(filename: string, first: number | undefined): string {
  const named = /\.(jsonl|ndjson|json|csv|parquet|txt)$/i.exec(filename)?.[1].toLowerCase();
  return named ?? (first === 0x7b ? "jsonl" : "txt");
}

/** Streams a file's bytes. */
export function fileBytes(path: string): ReadableStream<Uint8Array> {
  const stream = builtin<typeof fs>("node:fs").createReadStream(path), chunks = stream[Symbol.asyncIterator]();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { value, done } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(new Uint8Array(value));
    },
    cancel: () => void stream.destroy(),
  }, { highWaterMark: 0 });
}
