/**
 * The engine's files. The run is saved in the origin private file system, so that it survives a reload; it is in memory
 * if the browser has no such file system, or another tab uses it. Models from the disk are read in place, and exports
 * are made in memory.
 */
import { exists } from "../../src/files/files.ts";
import { MemoryFolder } from "../../src/files/memory_folder.ts";
import { system, useSystem } from "../../src/files/system.ts";
import { type WebFolder, webSystem } from "../../src/files/web_system.ts";
import type { DiskFile } from "./messages.ts";
import { FOLDER } from "./saved.ts";

/** Milliseconds to wait until an earlier engine of this page has ended. */
const PATIENCE = 3000;
/** Files that loading a model needs; the optimizer's state is not needed. */
const READ = /(?<!optimizer)\.(safetensors|bin|jsonl?|txt|jinja|model|pkl)$/;

export class Storage {
  readonly #roots = { saved: new MemoryFolder() as WebFolder, disk: new MemoryFolder(), export: new MemoryFolder() };
  #release = () => {};
  /** Why the run is not saved; undefined if it is. */
  unsaved: string | undefined;

  private constructor() {}

  static async open(): Promise<Storage> {
    const storage = new Storage();
    useSystem(webSystem(storage.#roots));
    try {
      storage.unsaved = await storage.#take();
    } catch (error) {
      storage.unsaved = `the browser refused a folder for this page (${(error as Error).message})`;
    }
    return storage;
  }

  /** Opens the page's folder. @returns why the folder cannot be used; undefined if it can */
  async #take(): Promise<string | undefined> {
    const { storage, locks } = navigator;
    if (!storage?.getDirectory || !locks || !("move" in FileSystemFileHandle.prototype)) {
      return "this browser provides no folders for pages" +
        (isSecureContext ? "" : " that are not from https or localhost");
    }
    const { promise: held, resolve } = Promise.withResolvers<boolean>(), signal = AbortSignal.timeout(PATIENCE);
    const work = () => {
      resolve(true);
      return new Promise<void>((release) => this.#release = release);
    };
    locks.request(FOLDER, { signal }, work) // only the holder of the lock writes to the folder
      .catch(() => resolve(false));
    if (!await held) return "another tab of this page uses the saved run";
    const root = await storage.getDirectory();
    this.#roots.saved = await root.getDirectoryHandle(FOLDER, { create: true }) as unknown as WebFolder;
  }

  /** Stores the run in memory from now on. @param why the reason, for the user */
  forgo(why: string): void {
    this.unsaved = why;
    this.#roots.saved = new MemoryFolder();
  }

  /** Makes files from the disk readable. @returns the path of the folder with the model */
  async mount(files: readonly DiskFile[]): Promise<string> {
    const read = files.filter(({ path }) => READ.test(path)).sort((a, b) => depth(a.path) - depth(b.path));
    const at = read.find(({ path }) => /(^|\/)(config|run)\.json$/.test(path))?.path.replace(/[^/]*$/, "");
    if (at === undefined) {
      throw new Error(
        "The folder has no model; expected a folder with config.json (Hugging Face) or run.json (a run)",
      );
    }
    const name = at.split("/").at(-2) ?? "model", folder = `disk/${name}`;
    for (const { path, file } of read) {
      if (!path.startsWith(at)) continue;
      const parts = path.slice(at.length).split("/");
      let place = await this.#roots.disk.getDirectoryHandle(name, { create: true });
      for (const part of parts.slice(0, -1)) place = await place.getDirectoryHandle(part, { create: true });
      place.put(parts.at(-1)!, file);
    }
    return folder;
  }

  /** Deletes the saved run. If the browser has no room for `bytes`, the next run is in memory. */
  async clear(bytes: number): Promise<void> {
    const names = await Array.fromAsync(system.readDir("saved"), ({ name }) => name);
    // request.json is deleted first: if the page ends before all files are deleted, no run is found.
    for (const name of names.sort((a) => a === "request.json" ? -1 : 1)) await remove(`saved/${name}`);
    if (this.unsaved !== undefined) return;
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    if (quota - usage >= bytes) return;
    const mb = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`;
    this.forgo(`it needs ${mb(bytes)}, but the browser gives this page ${mb(quota - usage)}`);
  }

  close(): void {
    this.#release();
  }
}

const depth = (path: string) => path.split("/").length;

export async function remove(path: string): Promise<void> {
  if (await exists(path)) await system.remove(path, { recursive: true });
}

/** Yields the paths of all files in a folder and its subfolders. */
export async function* filesIn(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of system.readDir(folder)) {
    if (isDirectory) yield* filesIn(`${folder}/${name}`);
    else yield `${folder}/${name}`;
  }
}

/** Copies a folder with everything in it. */
export async function copyFolder(from: string, to: string): Promise<void> {
  for await (const path of filesIn(from)) {
    const target = to + path.slice(from.length);
    await system.mkdir(target.slice(0, target.lastIndexOf("/")), { recursive: true });
    await system.copyFile(path, target);
  }
}

export async function sizeOf(folder: string): Promise<number> {
  let bytes = 0;
  for await (const path of filesIn(folder)) bytes += (await system.stat(path)).size;
  return bytes;
}
