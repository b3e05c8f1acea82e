/** Lists the files of a model's folder that was chosen or dropped. */
import type { DiskFile } from "./messages.ts";

/** Files of a chosen folder. */
export function filesOf(input: HTMLInputElement): DiskFile[] {
  return [...input.files ?? []].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/** All dropped files, including the files in folders. */
export async function droppedFiles({ items }: DataTransfer): Promise<DiskFile[]> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()); // the list is empty after an await
  return (await Promise.all(entries.map((entry) => entry ? filesUnder(entry) : []))).flat();
}

async function filesUnder(entry: FileSystemEntry): Promise<DiskFile[]> {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    return [{ path, file: await new Promise<File>((...done) => (entry as FileSystemFileEntry).file(...done)) }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader(), found: FileSystemEntry[] = [];
  for (let more; (more = await nextOf(reader)).length > 0;) found.push(...more); // at most a hundred at a time
  return (await Promise.all(found.map(filesUnder))).flat();
}

const nextOf = (reader: FileSystemDirectoryReader) =>
  new Promise<FileSystemEntry[]>((...done) => reader.readEntries(...done));
