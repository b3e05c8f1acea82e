import { replaceFile } from "../files/files.ts";
import { system } from "../files/system.ts";

/** A file on the network whose contents are known. */
export interface KnownFile {
  /** Its name in the cache folder. */ name: string;
  /** Where it is fetched from. */ url: string;
  /** Its length. */ bytes: number;
  /** Of its contents, in hexadecimal. */ sha256: string;
}

/**
 * A known file from the cache folder or, if it is not there whole, from the network. Contents that are not the known ones
 * are never used: a damaged cached file is fetched again.
 *
 * @param cacheFolder made when there is none; a folder that can't be written only means that nothing is kept
 * @param options.connectTimeout milliseconds until the server must have answered
 * @param options.onDownload called when the network is needed
 * @throws {Error} when neither has the file; the message says why
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
  if (!await isKnown(fetched, file)) throw new Error(`${file.url} is not the file that it was`);
  // Whoever reads the folder at the same time finds the whole file or none.
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
