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
  /** May take fewer bytes than there are; returns how many it took. */
  write(bytes: Uint8Array): Promise<number>;
  /** Returns when the bytes are on the disk rather than in the system's memory. */
  sync(): Promise<void>;
  close(): void;
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

/** @throws {CheckpointError} when the file is missing or unreadable */
export async function openToRead(path: string): Promise<SystemFile> {
  try {
    return await system.open(path);
  } catch (error) {
    throw new CheckpointError(`Cannot read ${path}: ${reason(error)}`);
  }
}

/** @throws {CheckpointError} when the file is missing, unreadable, or no JSON object */
export async function readJson(path: string): Promise<Record<string, unknown>> {
  let bytes;
  try {
    bytes = await system.readFile(path);
  } catch (error) {
    throw new CheckpointError(`Cannot read ${path}: ${reason(error)}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // The parser's message quotes the text; that it is damaged is all that helps.
  }
  if (typeof value === "object" && value && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new CheckpointError(`${path} is damaged: it does not hold a JSON object`);
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
