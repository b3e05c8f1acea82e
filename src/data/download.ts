import { replaceFile } from "../files/files.ts";
import { system } from "../files/system.ts";

/** A file on the network whose contents are known. */
export interface KnownFile {
  /** Name of the file in the cache folder. */ name: string;
  /** Address to download the file from. */ url: string;
  /** Length of the file. */ bytes: number;
  /** SHA-256 of the file's contents, in hexadecimal. */ sha256: string;
}

/**
 * Reads a known file from the cache folder, or downloads it if the cache has no valid copy. The length and SHA-256 of
 * the contents are always checked: a damaged file in the cache is downloaded again.
 *
 * @param cacheFolder created if it does not exist; if it cannot be written, the file is not cached
 * @param options.connectTimeout milliseconds within which the server must answer
 * @param options.onDownload called before a download
 * @throws {Error} when the file can neither be read from the cache nor downloaded; the message says why
 */
export async function downloadOnce(
  file: KnownFile,
  cacheFolder: string,
  { connectTimeout = 5000, onDownload }: { connectTimeout?: number; onDownload?: () => void } = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const path = `${cacheFolder}/${file.name}`;
  const cached = await system.readFile(path).catch(() => undefined);
  if (cached && await isKnown(cached, file)) return cached;
  onDownload?.();
  const fetched = await download(file.url, connectTimeout);
  if (!await isKnown(fetched, file)) throw new Error(`${file.url} has changed: its SHA-256 or length differs`);
  // The file is replaced atomically, so another process never reads an incomplete file.
  await system.mkdir(cacheFolder, { recursive: true }).then(() => replaceFile(path, [fetched])).catch(() => {});
  return fetched;
}

async function download(url: string, connectTimeout: number): Promise<Uint8Array<ArrayBuffer>> {
  const controller = new AbortController();
  const within = async <T>(milliseconds: number, doing: string, work: Promise<T>): Promise<T> => {
    const timer = setTimeout(() => controller.abort(new Error(`${doing} took too long`)), milliseconds);
    return await work.finally(() => clearTimeout(timer));
  };
  const response = await within(connectTimeout, "connecting", fetch(url, { signal: controller.signal }));
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`the server answered ${response.status}`);
  }
  return await within(60_000, "the download", response.bytes());
}

async function isKnown(bytes: Uint8Array<ArrayBuffer>, file: KnownFile): Promise<boolean> {
  if (bytes.length !== file.bytes) return false;
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)); // Node 24 has no toHex
  return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
}
