/**
 * The calls to the system, with Deno's names and behaviour: Deno's own where there is Deno, otherwise Node's, which are asked
 * for at first use, or those of a browser's folders, where a program says so. An `import` of `node:fs` would cost start-up time in Deno and would stop bundlers, so there is none.
 */
import type * as fs from "node:fs";

/** What is used of `Deno.FileInfo`. */
export interface SystemFileInfo {
  readonly size: number;
  readonly isFile: boolean;
  readonly isDirectory: boolean;
  readonly mtime: Date | null;
  /** The file's own number, also under another name; null where the system has none. */
  readonly ino: number | null;
}

/** What is used of `Deno.FsFile`: reads and writes move the file's one position. */
export interface SystemFile extends Disposable {
  /** May read fewer bytes than there is room for; null at the end of the file. */
  read(bytes: Uint8Array): Promise<number | null>;
  readSync(bytes: Uint8Array): number | null;
  write(bytes: Uint8Array): Promise<number>;
  /** `whence` is 0 for a position from the file's start, 2 for one from its end. Returns the new position. */
  seek(offset: number, whence: 0 | 2): Promise<number>;
  seekSync(offset: number, whence: 0 | 2): number;
  statSync(): SystemFileInfo;
  truncateSync(length?: number): void;
  sync(): Promise<void>;
  /** Waits until no other process holds the file's lock. Node has no such locks. */
  lock?(exclusive?: boolean): Promise<void>;
  /** Takes that lock, or gives false where another has it. */
  tryLock?(exclusive?: boolean): Promise<boolean>;
  close(): void;
}

export interface OpenMode {
  readonly read?: boolean;
  readonly write?: boolean;
  readonly create?: boolean;
  readonly truncate?: boolean;
}

/** What is used of `Deno`. */
export interface System {
  readonly build: { readonly os: string };
  readonly pid: number;
  readonly env: { get(name: string): string | undefined };
  open(path: string, mode?: OpenMode): Promise<SystemFile>;
  openSync(path: string, mode?: OpenMode): SystemFile;
  readFile(path: string): Promise<Uint8Array<ArrayBuffer>>;
  writeTextFile(path: string, text: string, options?: { readonly append?: boolean }): Promise<void>;
  copyFile(from: string, to: string): Promise<void>;
  truncate(path: string, length?: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string, options?: { readonly recursive?: boolean }): Promise<void>;
  removeSync(path: string): void;
  utime(path: string, accessed: Date, modified: Date): Promise<void>;
  mkdir(path: string, options?: { readonly recursive?: boolean }): Promise<void>;
  readDir(path: string): AsyncIterable<{ readonly name: string; readonly isDirectory: boolean }>;
  stat(path: string): Promise<SystemFileInfo>;
  lstat(path: string): Promise<SystemFileInfo>;
}

/** One of Node's own modules, in Deno or Node. @throws {TypeError} elsewhere */
export function builtin<T>(name: `node:${string}`): T {
  const found = globalThis.process?.getBuiltinModule?.(name);
  if (!found) throw new TypeError(`there is no ${name} here: this needs Deno or Node 24`);
  return found as T;
}

/** The system's name for an error, such as `ENOENT`; Deno's errors and Node's have the same. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as { code?: string }).code : undefined;
}

type NodeFs = typeof fs;
type NodeStats = Omit<SystemFileInfo, "isFile" | "isDirectory"> & { isFile(): boolean; isDirectory(): boolean };
type Done<T> = (error: Error | null, value?: T) => void;

/** The most bytes of one call: Node's lengths are 32-bit integers. */
const MOST = 2 ** 30;

const node = (): NodeFs => builtin("node:fs");
const promised = <T>(call: (done: Done<T>) => void): Promise<T> =>
  new Promise((resolve, reject) => call((error, value) => error ? reject(error) : resolve(value!)));
const infoOf = (stats: NodeStats): SystemFileInfo => ({
  size: stats.size,
  isFile: stats.isFile(),
  isDirectory: stats.isDirectory(),
  mtime: stats.mtime,
  ino: stats.ino,
});

class NodeFile implements SystemFile {
  #at = 0;

  constructor(readonly fs: NodeFs, readonly fd: number) {}

  static open(path: string, { read, write, create, truncate }: OpenMode = { read: true }): NodeFile {
    const fs = node(), { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC } = fs.constants;
    const access = write ? read ? O_RDWR : O_WRONLY : O_RDONLY;
    return new NodeFile(fs, fs.openSync(path, access | (create ? O_CREAT : 0) | (truncate ? O_TRUNC : 0)));
  }
  #moved(count: number): number | null {
    this.#at += count;
    return count || null;
  }
  async read(bytes: Uint8Array): Promise<number | null> {
    const { fs, fd } = this, length = Math.min(bytes.length, MOST);
    return this.#moved(await promised<number>((done) => fs.read(fd, bytes, 0, length, this.#at, done)));
  }
  readSync(bytes: Uint8Array): number | null {
    return this.#moved(this.fs.readSync(this.fd, bytes, 0, Math.min(bytes.length, MOST), this.#at));
  }
  async write(bytes: Uint8Array): Promise<number> {
    const { fs, fd } = this, length = Math.min(bytes.length, MOST);
    return this.#moved(await promised<number>((done) => fs.write(fd, bytes, 0, length, this.#at, done))) ?? 0;
  }
  seekSync(offset: number, whence: 0 | 2): number {
    return this.#at = offset + (whence === 2 ? this.statSync().size : 0);
  }
  seek(offset: number, whence: 0 | 2): Promise<number> {
    return Promise.resolve(this.seekSync(offset, whence));
  }
  statSync(): SystemFileInfo {
    return infoOf(this.fs.fstatSync(this.fd));
  }
  truncateSync(length = 0): void {
    this.fs.ftruncateSync(this.fd, length);
  }
  sync(): Promise<void> {
    return promised((done) => this.fs.fsync(this.fd, done));
  }
  close(): void {
    this.fs.closeSync(this.fd);
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Each call is `async`, so that what it throws is the promise's, as in Deno. */
const nodeSystem: System = {
  get build() {
    return { os: globalThis.process?.platform === "win32" ? "windows" : globalThis.process?.platform ?? "" };
  },
  get pid() {
    return globalThis.process?.pid ?? 0;
  },
  env: { get: (name) => globalThis.process?.env?.[name] },
  open: async (path, mode) => await NodeFile.open(path, mode),
  openSync: (path, mode) => NodeFile.open(path, mode),
  readFile: async (path) => new Uint8Array(await node().promises.readFile(path)), // a copy: a Buffer's slice() is another
  writeTextFile: async (path, text, { append } = {}) =>
    await node().promises.writeFile(path, text, { flag: append ? "a" : "w" }),
  copyFile: async (from, to) => await node().promises.copyFile(from, to),
  truncate: async (path, length) => await node().promises.truncate(path, length),
  rename: async (from, to) => await node().promises.rename(from, to),
  async remove(path, { recursive = false } = {}) {
    const { promises } = node(), directory = !recursive && (await promises.lstat(path)).isDirectory();
    await (directory ? promises.rmdir(path) : promises.rm(path, { recursive }));
  },
  removeSync: (path) => node().unlinkSync(path),
  utime: async (path, accessed, modified) => await node().promises.utimes(path, accessed, modified),
  mkdir: async (path, options) => void await node().promises.mkdir(path, options),
  async *readDir(path) {
    for (const entry of await node().promises.readdir(path, { withFileTypes: true })) {
      yield { name: entry.name, isDirectory: entry.isDirectory() };
    }
  },
  stat: async (path) => infoOf(await node().promises.stat(path)),
  lstat: async (path) => infoOf(await node().promises.lstat(path)),
};

/** The system under this program. In a browser every call throws, until {@linkcode useSystem} has given it one. */
export let system: System = globalThis.Deno ?? nodeSystem;

/** Has all calls go to another system, such as a browser's (web_system.ts). */
export function useSystem(other: System): void {
  system = other;
}
