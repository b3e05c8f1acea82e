/**
 * File-system calls with Deno's names and behaviour. In Deno they are Deno's functions, in Node they use `node:fs`, and
 * in a browser a program can provide them with `useSystem`. `node:fs` is loaded when it is first used and not imported,
 * because an `import` would cost start-up time in Deno and break bundlers.
 */
import type * as fs from "node:fs";

/** The part of `Deno.FileInfo` that is used. */
export interface SystemFileInfo {
  readonly size: number;
  readonly isFile: boolean;
  readonly isDirectory: boolean;
  readonly mtime: Date | null;
  /** Inode number, which stays the same when a file is renamed; null if the system has none. */
  readonly ino: number | null;
}

/** The part of `Deno.FsFile` that is used. A file has one position, which both reading and writing move. */
export interface SystemFile extends Disposable {
  /** Reads up to `bytes.length` bytes. Returns how many were read, or null at the end of the file. */
  read(bytes: Uint8Array): Promise<number | null>;
  readSync(bytes: Uint8Array): number | null;
  write(bytes: Uint8Array): Promise<number>;
  /**
   * Moves the position to `offset` from the start (`whence` 0) or the end (`whence` 2) of the file. Returns the new
   * position.
   */
  seek(offset: number, whence: 0 | 2): Promise<number>;
  seekSync(offset: number, whence: 0 | 2): number;
  statSync(): SystemFileInfo;
  truncateSync(length?: number): void;
  sync(): Promise<void>;
  /** Locks the file, waiting until no other process holds its lock. Not available in Node. */
  lock?(exclusive?: boolean): Promise<void>;
  /** Locks the file without waiting. Returns false if another process holds the lock. */
  tryLock?(exclusive?: boolean): Promise<boolean>;
  close(): void;
}

export interface OpenMode {
  readonly read?: boolean;
  readonly write?: boolean;
  readonly create?: boolean;
  readonly truncate?: boolean;
}

/** The part of `Deno` that is used. */
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

/** A built-in module of Node, in Deno or Node. @throws {TypeError} in any other runtime */
export function builtin<T>(name: `node:${string}`): T {
  const found = globalThis.process?.getBuiltinModule?.(name);
  if (!found) throw new TypeError(`${name} is not available: this needs Deno or Node 24`);
  return found as T;
}

/** The system's code for an error, such as `ENOENT`, which is equal in Deno and Node. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as { code?: string }).code : undefined;
}

type NodeFs = typeof fs;
type NodeStats = Omit<SystemFileInfo, "isFile" | "isDirectory"> & { isFile(): boolean; isDirectory(): boolean };
type Done<T> = (error: Error | null, value?: T) => void;

/** The maximum number of bytes of one call, because lengths in Node are 32-bit integers. */
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

/** Node's implementation. Each function is `async`, so that errors reject the promise, as in Deno. */
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
  // The buffer is copied to a Uint8Array, because `slice` of a Buffer shares memory.
  readFile: async (path) => new Uint8Array(await node().promises.readFile(path)),
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

/** The file system in use. In a browser every call throws until {@linkcode useSystem} has set one. */
export let system: System = globalThis.Deno ?? nodeSystem;

/** Sets the file system for all calls, such as a browser's (web_system.ts). */
export function useSystem(other: System): void {
  system = other;
}
