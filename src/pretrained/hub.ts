/**
 * GPT-2's checkpoints from Hugging Face's hub, each downloaded once to the cache folder.
 *
 * A download is written to NAME.ETAG.part, and renamed when it is complete. A download that breaks is resumed from the
 * end of that file. The hub sends a file's length, and as its ETag the SHA-256 of a large file or git's SHA-1 of a
 * small one (https://huggingface.co/docs/hub/api). Both are checked.
 */
import type * as crypto from "node:crypto";
import { defaultCacheFolder } from "../files/cache_folder.ts";
import { CheckpointError } from "../errors.ts";
import { innermost } from "../files/reason.ts";
import { exists, syncDirectory, writeAll } from "../files/files.ts";
import { builtin, system, type SystemFile } from "../files/system.ts";

/** The models that can be downloaded by name: nanoGPT's four, and distilgpt2. */
export const HUB_MODELS = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"] as const;
/** The name of a model on the hub. */
export type HubModel = typeof HUB_MODELS[number];

/** The files of a model to download, the weights last. */
const FILES = ["config.json", "vocab.json", "merges.txt", "tokenizer.json", "model.safetensors"];
/** The most attempts to download a file. After an attempt that received no byte, there is no further attempt. */
const ATTEMPTS = 5;
/** Milliseconds without a byte after which a download is considered broken. */
const STALLED = 30_000;

/** The progress of a download. */
export interface HubProgress {
  /** The file's name in the folder. */ readonly file: string;
  /** Bytes of the file received so far, including an earlier download. */ readonly bytes: number;
  /** Bytes of the whole file; undefined if the server does not send its length. */ readonly total: number | undefined;
}

/** Options of {@linkcode downloadModel}. */
export interface HubOptions {
  /** The folder in which the model's folder is made. Default: `defaultCacheFolder()`. */
  readonly cacheFolder?: string;
  /** The hub, or a mirror. Default: https://huggingface.co. */
  readonly baseUrl?: string;
  /** Called when a file begins, and for every received piece of it. */
  readonly onProgress?: (progress: HubProgress) => void;
  /** Milliseconds in which the server must answer. Default 10,000. */
  readonly connectTimeout?: number;
}

/** Whether a name is one of {@linkcode HUB_MODELS}. */
export const isHubModel = (name: string): name is HubModel => (HUB_MODELS as readonly string[]).includes(name);

/**
 * Downloads the missing files of a GPT-2 from the hub. If all files are in the cache folder, no network is needed.
 *
 * @returns the folder NAME in the cache folder, for `loadHuggingFace`
 * @throws {CheckpointError} if a file cannot be downloaded, or its length or checksum differs from the hub's; the
 *   message says which files to put into which folder by hand
 * @example
 * ```ts ignore
 * const folder = await downloadModel("gpt2", { onProgress: ({ file, bytes, total }) => console.log(file, bytes, total) });
 * ```
 */
export async function downloadModel(name: HubModel, options: HubOptions = {}): Promise<string> {
  const { cacheFolder = defaultCacheFolder(), baseUrl = "https://huggingface.co" } = options;
  const folder = `${cacheFolder}/${name}`, missing: string[] = [];
  for (const file of FILES) if (!await exists(`${folder}/${file}`)) missing.push(file);
  while (missing.length > 0) {
    const [file] = missing;
    try {
      await system.mkdir(folder, { recursive: true });
      await download(`${baseUrl}/${name}/resolve/main/${file}`, folder, file, options);
    } catch (error) {
      const instead = `You can put ${missing.join(", ")} from ${baseUrl}/${name} into ${folder} by hand`;
      throw new CheckpointError(`Cannot download ${file} of ${name}: ${innermost(error)}\n${instead}`);
    }
    missing.shift();
  }
  return folder;
}

async function download(url: string, folder: string, name: string, options: HubOptions): Promise<void> {
  const { etag, total, source } = await describe(url, options);
  const path = `${folder}/${name}`, partial = `${path}.${etag.replace(/\W/g, "") || "unknown"}.part`;
  using file = await system.open(partial, { read: true, write: true, create: true });
  await file.lock?.(true); // another process may be downloading it, and may have finished when the lock is free
  if (await exists(path)) {
    await system.remove(partial).catch(() => {}); // this process opened it after the other process had renamed its file
    return;
  }
  for (let attempt = 1;; attempt++) {
    const before = await file.seek(0, 2);
    try {
      await append(file, source, { name, total, ...options });
    } catch (error) {
      const after = await file.seek(0, 2);
      if (attempt < ATTEMPTS && after > before && !(error instanceof CheckpointError)) continue;
      throw error;
    }
    break;
  }
  await file.sync();
  const sum = await checksum(file, etag);
  if (sum !== undefined && sum !== etag) {
    await system.remove(partial);
    throw new CheckpointError(`the checksum of the downloaded file is ${sum}; expected ${etag}`);
  }
  await system.rename(partial, path);
  await syncDirectory(folder);
}

/**
 * Asks the hub for a file's address, ETag and length. For a large file, the hub answers with a redirect that has these
 * headers.
 */
async function describe(url: string, { connectTimeout = 10_000 }: HubOptions) {
  let source = url;
  for (let hops = 0; hops < 5; hops++) {
    const request = { method: "HEAD", redirect: "manual", headers: { "accept-encoding": "identity" } } as const;
    const { status, headers } = await fetch(source, { ...request, signal: AbortSignal.timeout(connectTimeout) });
    const next = status >= 300 && status < 400 ? new URL(headers.get("location") ?? "", source) : undefined;
    const elsewhere = next && next.origin !== new URL(source).origin;
    if (next && !elsewhere) {
      source = next.href; // the model was renamed on the hub
      continue;
    }
    if (status >= 400) throw new CheckpointError(`the server answered ${status}`);
    const length = headers.get("x-linked-size") ?? (elsewhere ? null : headers.get("content-length"));
    const etag = (headers.get("x-linked-etag") ?? headers.get("etag") ?? "").replace(/^W\//, "").replaceAll('"', "");
    return { source, etag, total: length === null ? undefined : Number(length) };
  }
  throw new CheckpointError("the server redirects too often");
}

/** Downloads the rest of a file, after the bytes that it already has. */
async function append(
  file: SystemFile,
  url: string,
  { name, total, onProgress = () => {}, connectTimeout = 10_000 }: HubOptions & { name: string; total?: number },
): Promise<void> {
  let at = await file.seek(0, 2);
  if (total !== undefined && at > total) file.truncateSync(at = 0);
  onProgress({ file: name, bytes: at, total });
  if (at === total) return;
  const controller = new AbortController(),
    limit = (milliseconds: number, what: string) => setTimeout(() => controller.abort(new Error(what)), milliseconds);
  let timer = limit(connectTimeout, "connecting took too long");
  try {
    const headers = { "accept-encoding": "identity", ...(at > 0 && { range: `bytes=${at}-` }) };
    const response = await fetch(url, { headers, signal: controller.signal });
    if (!response.ok || !response.body) {
      await response.body?.cancel();
      if (response.status === 416) file.truncateSync(0); // the file has changed on the server: begin again next time
      throw new CheckpointError(`the server answered ${response.status}`);
    }
    const begin = Number(/^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? 0);
    if (begin !== at) file.truncateSync(at = 0); // a server without range requests sends the whole file
    await file.seek(at, 0);
    for await (const piece of response.body) {
      clearTimeout(timer);
      timer = limit(STALLED, "the download stalled");
      await writeAll(file, piece);
      onProgress({ file: name, bytes: at += piece.length, total });
    }
  } finally {
    clearTimeout(timer);
  }
  if (total === undefined || at === total) return;
  if (at < total) throw new Error(`only ${at} of ${total} bytes were received`);
  file.truncateSync(0);
  throw new CheckpointError(`${at} bytes were received; expected the ${total} that the hub announced`);
}

/** A file's SHA-256, or git's SHA-1, depending on the form of its ETag; undefined if the ETag is neither. */
async function checksum(file: SystemFile, etag: string): Promise<string | undefined> {
  const algorithm = /^[0-9a-f]{64}$/.test(etag) ? "sha256" : /^[0-9a-f]{40}$/.test(etag) ? "sha1" : undefined;
  if (!algorithm) return undefined;
  const hash = builtin<typeof crypto>("node:crypto").createHash(algorithm),
    block = new Uint8Array(2 ** 20);
  if (algorithm === "sha1") hash.update(`blob ${await file.seek(0, 2)}\0`);
  await file.seek(0, 0);
  for (let count; (count = await file.read(block)) !== null;) hash.update(block.subarray(0, count));
  return hash.digest("hex");
}
