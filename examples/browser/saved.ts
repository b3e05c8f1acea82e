/** Finds and deletes the saved run in the origin private file system. The page uses this before it starts an engine. */
import type { SavedRequest } from "./messages.ts";

/** The page's folder in the origin private file system. */
export const FOLDER = "nanogpt-ts";

const root = async () => await navigator.storage?.getDirectory?.();

async function readJson(folder: FileSystemDirectoryHandle, name: string): Promise<Record<string, unknown>> {
  return JSON.parse(await (await (await folder.getFileHandle(name)).getFile()).text());
}

/**
 * Number of attempts to read the folder, and milliseconds between them. After a reload, the engine of the earlier page
 * may still be writing.
 */
const ATTEMPTS = 10, PAUSE = 200;

/** The saved run and its number of updates; undefined if there is none. */
export async function findSaved(): Promise<{ request: SavedRequest; iter: number } | undefined> {
  let folder: FileSystemDirectoryHandle;
  try {
    folder = await (await root())!.getDirectoryHandle(FOLDER);
  } catch {
    return undefined; // there is no folder, or the browser has no such file system
  }
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    try {
      const request = await readJson(folder, "request.json");
      const { last } = await readJson(await folder.getDirectoryHandle("run"), "run.json");
      const iter = Number(/^checkpoint-(\d+)/.exec(String(last))?.[1]);
      return Number.isFinite(iter) ? { request: request as unknown as SavedRequest, iter } : undefined;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

/** Deletes the saved run. @throws {Error} while an engine uses the folder */
export async function forgetSaved(): Promise<void> {
  await (await root())!.removeEntry(FOLDER, { recursive: true });
}
