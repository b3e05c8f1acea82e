/** A model's folder, chosen or dropped: its files by their paths. */
import type { DiskFile } from "./messages.ts";

/** The files of a folder that was chosen. */
export function filesOf(input: HTMLInputElement): DiskFile[] {
  return [...input.files ?? []].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/** All files of what was dropped, those in folders too. */
export async function droppedFiles({ items }: DataTransfer): Promise<DiskFile[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()); // before anything is awaited: then the list is empty
  return (await Promise.all(entries.map((entry) => entry ? filesUnder(entry) : []))).flat();
}

async function filesUnder(entry: FileSystemEntry): Promise<DiskFile[]> {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    return [{ path, file: await new Promise<File>((...done) => (entry as FileSystemFileEntry).file(...done)) }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader(), found: FileSystemEntry[] = [];
  for (let more; (more = await nextOf(reader)).length > 0;) found.push(...more); // a hundred at a time
  return (await Promise.all(found.map(filesUnder))).flat();
}

const nextOf = (reader: FileSystemDirectoryReader) =>
  new Promise<FileSystemEntry[]>((...done) => reader.readEntries(...done));
