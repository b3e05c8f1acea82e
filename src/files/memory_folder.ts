/**
 * A folder in memory with the interface of a browser's folders: for temporary files, and for browsers without
 * persistent folders.
 */
import type { WebAccess, WebFile, WebFolder } from "./web_system.ts";

const refuse = (name: string) => new DOMException(name, name);
const promised = <T>(body: () => T): Promise<T> => new Promise((resolve) => resolve(body()));

/** A file in memory. Written bytes become visible when the file is flushed or closed. */
class MemoryFile implements WebFile {
  readonly kind = "file";

  constructor(public blob: Blob, readonly move: NonNullable<WebFile["move"]>) {}

  getFile(): Promise<Blob> {
    return Promise.resolve(this.blob);
  }
  async createSyncAccessHandle(): Promise<WebAccess> {
    let bytes = new Uint8Array(await this.blob.arrayBuffer()), size = bytes.length;
    const truncate = (length: number) => {
      if (length > bytes.length) {
        const room = new Uint8Array(Math.max(length, 2 * bytes.length));
        room.set(bytes.subarray(0, size));
        bytes = room;
      } else if (length < size) bytes.fill(0, length, size);
      size = length;
    };
    const flush = () => void (this.blob = new Blob([bytes.subarray(0, size)]));
    return {
      read(into, { at }) {
        const part = bytes.subarray(at, Math.min(size, at + into.length));
        into.set(part);
        return part.length;
      },
      write(from, { at }) {
        if (at + from.length > size) truncate(at + from.length);
        bytes.set(from, at);
        return from.length;
      },
      truncate,
      getSize: () => size,
      flush,
      close: flush,
    };
  }
}

/** A folder in memory, initially empty. */
export class MemoryFolder implements WebFolder {
  readonly kind = "directory";
  readonly #entries = new Map<string, MemoryFile | MemoryFolder>();
  /** Removes this folder from its parent. */
  #leave: () => void = () => {};

  /** Adds a file without copying its contents: a blob from a disk is read only when the file is read. */
  put(name: string, blob: Blob): void {
    const file: MemoryFile = new MemoryFile(blob, (folder, to) =>
      promised(() => {
        this.#entries.delete(name);
        (folder as MemoryFolder).put(to, file.blob);
      }));
    this.#entries.set(name, file);
  }
  getFileHandle(name: string, { create }: { readonly create?: boolean } = {}): Promise<WebFile> {
    return promised(() => {
      if (create && !this.#entries.has(name)) this.put(name, new Blob());
      return this.#get(name, "file");
    });
  }
  getDirectoryHandle(name: string, { create }: { readonly create?: boolean } = {}): Promise<MemoryFolder> {
    return promised(() => {
      if (create && !this.#entries.has(name)) this.#adopt(new MemoryFolder(), name);
      return this.#get(name, "directory");
    });
  }
  removeEntry(name: string, { recursive }: { readonly recursive?: boolean } = {}): Promise<void> {
    return promised(() => {
      const entry = this.#entries.get(name);
      if (!entry) throw refuse("NotFoundError");
      if (entry.kind === "directory" && !recursive && entry.#entries.size > 0) throw refuse("InvalidModificationError");
      this.#entries.delete(name);
    });
  }
  async *entries(): AsyncGenerator<[name: string, entry: WebFile | WebFolder]> {
    for (const entry of this.#entries) yield await Promise.resolve(entry);
  }
  move(folder: WebFolder, name: string): Promise<void> {
    return promised(() => {
      const target = folder as MemoryFolder, there = target.#entries.get(name);
      if (there && (there.kind === "file" || there.#entries.size > 0)) throw refuse("InvalidModificationError");
      this.#leave();
      target.#adopt(this, name);
    });
  }

  #adopt(folder: MemoryFolder, name: string): void {
    this.#entries.set(name, folder);
    folder.#leave = () => this.#entries.delete(name);
  }
  #get<K extends "file" | "directory">(name: string, kind: K): Extract<MemoryFile | MemoryFolder, { kind: K }> {
    const entry = this.#entries.get(name);
    if (!entry) throw refuse("NotFoundError");
    if (entry.kind !== kind) throw refuse("TypeMismatchError");
    return entry as Extract<MemoryFile | MemoryFolder, { kind: K }>;
  }
}
