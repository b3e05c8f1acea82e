/** What the origin's private file system holds of a run, as the page itself sees it, before there is an engine. */
import type { SavedRequest } from "./messages.ts";

/** The page's folder among the origin's. */
export const FOLDER = "nanogpt-ts";

const root = async () => await navigator.storage?.getDirectory?.();

async function readJson(folder: FileSystemDirectoryHandle, name: string): Promise<Record<string, unknown>> {
  return JSON.parse(await (await (await folder.getFileHandle(name)).getFile()).text());
}

/** How often, and after how many milliseconds, a folder is looked at again to which an engine of the page before may write yet. */
const ATTEMPTS = 10, PAUSE = 200;

/** The run that can be gone on with, and how many updates it has made; undefined where there is none. */
export async function findSaved(): Promise<{ request: SavedRequest; iter: number } | undefined> {
  let folder: FileSystemDirectoryHandle;
  try {
    folder = await (await root())!.getDirectoryHandle(FOLDER);
  } catch {
    return undefined; // none, or no such folders in this browser
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

/** @throws {Error} while an engine has it */
export async function forgetSaved(): Promise<void> {
  await (await root())!.removeEntry(FOLDER, { recursive: true });
}
