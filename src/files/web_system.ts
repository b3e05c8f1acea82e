/**
 * File-system calls for a browser. They work on folders of the origin's private file system
 * (https://fs.spec.whatwg.org), which remain when the page is closed, and on folders in memory (memory_folder.ts). A
 * worker passes this system to `useSystem`; then runs, checkpoints and Hugging Face folders are read and written as on
 * a disk.
 *
 * Locks always succeed. The caller must make sure that no other tab uses the same folder.
 */
import type { OpenMode, System, SystemFile, SystemFileInfo } from "./system.ts";

/** The part of `FileSystemSyncAccessHandle` that is used. */
export interface WebAccess {
  read(bytes: Uint8Array, options: { readonly at: number }): number;
  write(bytes: Uint8Array, options: { readonly at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

/** The part of `FileSystemFileHandle` that is used. */
export interface WebFile {
  readonly kind: "file";
  getFile(): Promise<Blob>;
  createSyncAccessHandle(): Promise<WebAccess>;
  move?(folder: WebFolder, name: string): Promise<void>;
}

/** The part of `FileSystemDirectoryHandle` that is used. */
export interface WebFolder {
  readonly kind: "directory";
  getFileHandle(name: string, options?: { readonly create?: boolean }): Promise<WebFile>;
  getDirectoryHandle(name: string, options?: { readonly create?: boolean }): Promise<WebFolder>;
  removeEntry(name: string, options?: { readonly recursive?: boolean }): Promise<void>;
  entries(): AsyncIterableIterator<[name: string, entry: WebFile | WebFolder]>;
  move?(folder: WebFolder, name: string): Promise<void>;
}

/** An error with a system's code, which `codeOf` returns. */
export const systemError = (message: string, code: string): Error => Object.assign(new Error(message), { code });

/** The system's code and a message for each error of a browser. */
const ERRORS: Readonly<Record<string, readonly [code: string, words: string]>> = {
  NotFoundError: ["ENOENT", "no such file or folder"],
  TypeMismatchError: ["ENOTDIR", "expected a file and found a folder, or the other way round"],
  InvalidModificationError: ["ENOTEMPTY", "the folder is not empty"],
  NoModificationAllowedError: ["EBUSY", "it is open elsewhere"],
  QuotaExceededError: ["ENOSPC", "the browser's storage for this page is full"],
};

async function asked<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    const [code, words] = error instanceof DOMException ? ERRORS[error.name] ?? [] : [];
    throw code && words ? systemError(words, code) : error;
  }
}

const infoOf = (size?: number): SystemFileInfo => ({
  size: size ?? 0,
  isFile: size !== undefined,
  isDirectory: size === undefined,
  mtime: null,
  ino: null,
});

/** An open file. For reading only, it is a snapshot of the contents; for writing, the file itself, opened exclusively. */
class OpenWebFile implements SystemFile {
  #at = 0;

  constructor(readonly blob: Blob | undefined, readonly access: WebAccess | undefined) {}

  #moved(count: number): number | null {
    this.#at += count;
    return count || null;
  }
  async read(bytes: Uint8Array): Promise<number | null> {
    const { blob } = this;
    if (!blob) return this.readSync(bytes);
    const part = new Uint8Array(await blob.slice(this.#at, this.#at + bytes.length).arrayBuffer());
    bytes.set(part);
    return this.#moved(part.length);
  }
  readSync(bytes: Uint8Array): number | null {
    return this.#moved(this.#writable.read(bytes, { at: this.#at }));
  }
  async write(bytes: Uint8Array): Promise<number> {
    const count = await asked(async () => await this.#writable.write(bytes, { at: this.#at }));
    if (count === 0 && bytes.length > 0) {
      throw systemError(...ERRORS.QuotaExceededError.toReversed() as [string, string]);
    }
    return this.#moved(count) ?? 0;
  }
  seekSync(offset: number, whence: 0 | 2): number {
    return this.#at = offset + (whence === 2 ? this.statSync().size : 0);
  }
  seek(offset: number, whence: 0 | 2): Promise<number> {
    return Promise.resolve(this.seekSync(offset, whence));
  }
  statSync(): SystemFileInfo {
    return infoOf(this.blob?.size ?? this.#writable.getSize());
  }
  truncateSync(length = 0): void {
    this.#writable.truncate(length);
  }
  async sync(): Promise<void> {
    await asked(async () => await this.access?.flush());
  }
  tryLock(): Promise<boolean> {
    return Promise.resolve(true);
  }
  close(): void {
    this.access?.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }
  get #writable(): WebAccess {
    if (this.access) return this.access;
    throw systemError("a file that is open for reading allows only asynchronous reads in a browser", "EBADF");
  }
}

/**
 * Creates a file system from a browser's folders.
 * @param roots folders, under the names with which paths begin: `saved/run/run.json` is in the folder `saved`
 */
export function webSystem(roots: Readonly<Record<string, WebFolder>>): System {
  const partsOf = (path: string) => path.split("/").filter((part) => part !== "" && part !== ".");
  const folderOf = async (parts: readonly string[], create = false): Promise<WebFolder> => {
    const [root, ...names] = parts;
    if (root === undefined || !Object.hasOwn(roots, root)) throw systemError(ERRORS.NotFoundError[1], "ENOENT");
    let folder = roots[root];
    for (const name of names) folder = await folder.getDirectoryHandle(name, { create });
    return folder;
  };
  /** The parent folder of a path, and the last part of the path. */
  const placeOf = async (path: string): Promise<[folder: WebFolder, name: string]> => {
    const parts = partsOf(path);
    if (parts.length < 2) throw systemError("it is a root folder of the page", "EPERM");
    return [await folderOf(parts.slice(0, -1)), parts.at(-1)!];
  };
  const find = async (path: string): Promise<WebFile | WebFolder> => {
    const parts = partsOf(path);
    if (parts.length < 2) return await folderOf(parts);
    const [folder, name] = await placeOf(path);
    try {
      return await folder.getFileHandle(name);
    } catch (error) {
      if ((error as Error).name !== "TypeMismatchError") throw error;
      return await folder.getDirectoryHandle(name);
    }
  };
  const stat = (path: string) =>
    asked(async () => {
      const found = await find(path);
      return found.kind === "file" ? infoOf((await found.getFile()).size) : infoOf();
    });
  const open = (path: string, { write, create, truncate }: OpenMode = { read: true }) =>
    asked(async () => {
      const [folder, name] = await placeOf(path), file = await folder.getFileHandle(name, { create });
      if (!write) return new OpenWebFile(await file.getFile(), undefined);
      const access = await file.createSyncAccessHandle();
      if (truncate) access.truncate(0);
      return new OpenWebFile(undefined, access);
    });
  const sync = () => {
    throw systemError("this call is not available in a browser", "ENOSYS");
  };
  const readFile = (path: string) =>
    asked(async () => {
      const found = await find(path);
      if (found.kind !== "file") throw systemError("it is a folder", "EISDIR");
      return new Uint8Array(await (await found.getFile()).arrayBuffer());
    });
  return {
    build: { os: "browser" },
    pid: 0,
    env: { get: () => undefined },
    open,
    openSync: sync,
    removeSync: sync,
    readFile,
    async writeTextFile(path, text, { append } = {}) {
      using file = await open(path, { write: true, create: true, truncate: !append });
      file.seekSync(0, 2);
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
      await file.sync();
    },
    async copyFile(from, to) {
      using source = await open(from), target = await open(to, { write: true, create: true, truncate: true });
      const bytes = new Uint8Array(2 ** 20);
      for (let count; (count = await source.read(bytes)) !== null;) {
        for (let at = 0; at < count;) at += await target.write(bytes.subarray(at, count));
      }
      await target.sync();
    },
    async truncate(path, length) {
      using file = await open(path, { write: true });
      file.truncateSync(length);
      await file.sync();
    },
    rename: (from, to) =>
      asked(async () => {
        const entry = await find(from), [folder, name] = await placeOf(to);
        if (!entry.move) throw systemError("this browser cannot rename files or folders", "ENOSYS");
        await entry.move(folder, name);
      }),
    remove: (path, options) =>
      asked(async () => {
        const [folder, name] = await placeOf(path);
        await folder.removeEntry(name, options);
      }),
    utime: () => Promise.resolve(),
    mkdir: (path, { recursive = false } = {}) =>
      asked(async () => {
        const parts = partsOf(path);
        if (recursive) return void await folderOf(parts, true);
        if (await find(path).then(() => true, () => false)) throw systemError("it already exists", "EEXIST");
        await (await folderOf(parts.slice(0, -1))).getDirectoryHandle(parts.at(-1)!, { create: true });
      }),
    async *readDir(path) {
      const folder = await asked(() => folderOf(partsOf(path)));
      for await (const [name, { kind }] of folder.entries()) yield { name, isDirectory: kind === "directory" };
    },
    stat,
    lstat: stat,
  };
}
