/**
 * GPT-2's own checkpoints from Hugging Face's hub, each downloaded once into the cache folder.
 *
 * A file has its name only when it is whole: until then it is NAME.ETAG.part, from whose end a download that broke goes on. The
 * hub names the length of a file, and as its ETag the SHA-256 of a large one and git's SHA-1 of a small one
 * (https://huggingface.co/docs/hub/api); both are compared.
 */
import type * as crypto from "node:crypto";
import { defaultCacheFolder } from "../files/cache_folder.ts";
import { CheckpointError } from "../errors.ts";
import { innermost } from "../files/reason.ts";
import { exists, syncDirectory, writeAll } from "../files/files.ts";
import { builtin, system, type SystemFile } from "../files/system.ts";

/** The names that `--init_from` takes, as nanoGPT's, and distilgpt2. */
export const HUB_MODELS = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"] as const;
/** A name on the hub. */
export type HubModel = typeof HUB_MODELS[number];

/** What of a model is downloaded, the weights last. */
const FILES = ["config.json", "vocab.json", "merges.txt", "tokenizer.json", "model.safetensors"];
/** How often a download goes on after it has broken, as long as something has come. */
const ATTEMPTS = 5;
/** Milliseconds without a byte after which a download has broken. */
const STALLED = 30_000;

/** How far a download is. */
export interface HubProgress {
  /** Its name in the folder. */ readonly file: string;
  /** How many bytes of the file are there, those of an earlier download among them. */ readonly bytes: number;
  /** How many there will be, where the server says. */ readonly total: number | undefined;
}

/** How {@linkcode downloadModel} downloads. */
export interface HubOptions {
  /** Where the model's folder is made: `defaultCacheFolder()` unless given. */
  readonly cacheFolder?: string;
  /** The hub, or a mirror: https://huggingface.co unless given. */
  readonly baseUrl?: string;
  /** Called when a file begins, and whenever a piece of it has come. */
  readonly onProgress?: (progress: HubProgress) => void;
  /** Milliseconds until the server must have answered: 10,000 unless given. */
  readonly connectTimeout?: number;
}

/** Whether the hub has a model of this name that can be loaded. */
export const isHubModel = (name: string): name is HubModel => (HUB_MODELS as readonly string[]).includes(name);

/**
 * The folder of a GPT-2 from the hub, for `loadHuggingFace`. What is missing in it is downloaded; where all is there, no network
 * is needed.
 *
 * @returns the folder: NAME in the cache folder
 * @throws {CheckpointError} when a file can't be had, or has another length or checksum than the hub says; the message says
 *   which files to put into which folder instead
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
      const instead = `Or put ${missing.join(", ")} from ${baseUrl}/${name} into ${folder}`;
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
  await file.lock?.(true); // another process may be at it, and have it by now
  if (await exists(path)) {
    await system.remove(partial).catch(() => {}); // opened after the other had renamed its own
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
    throw new CheckpointError(`what came is not the file that the hub describes: its checksum is ${sum}, not ${etag}`);
  }
  await system.rename(partial, path);
  await syncDirectory(folder);
}

/** What the hub says of a file: it answers for large ones with a redirection to where they are, and describes them there. */
async function describe(url: string, { connectTimeout = 10_000 }: HubOptions) {
  let source = url;
  for (let hops = 0; hops < 5; hops++) {
    const request = { method: "HEAD", redirect: "manual", headers: { "accept-encoding": "identity" } } as const;
    const { status, headers } = await fetch(source, { ...request, signal: AbortSignal.timeout(connectTimeout) });
    const next = status >= 300 && status < 400 ? new URL(headers.get("location") ?? "", source) : undefined;
    const elsewhere = next && next.origin !== new URL(source).origin;
    if (next && !elsewhere) {
      source = next.href; // a model that has moved within the hub
      continue;
    }
    if (status >= 400) throw new CheckpointError(`the server answered ${status}`);
    const length = headers.get("x-linked-size") ?? (elsewhere ? null : headers.get("content-length"));
    const etag = (headers.get("x-linked-etag") ?? headers.get("etag") ?? "").replace(/^W\//, "").replaceAll('"', "");
    return { source, etag, total: length === null ? undefined : Number(length) };
  }
  throw new CheckpointError("the server redirects in circles");
}

/** Brings what is behind the file's end into it. */
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
      if (response.status === 416) file.truncateSync(0); // it has changed: from the beginning, the next time
      throw new CheckpointError(`the server answered ${response.status}`);
    }
    const begin = Number(/^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? 0);
    if (begin !== at) file.truncateSync(at = 0); // a server that knows no ranges sends all of it
    await file.seek(at, 0);
    for await (const piece of response.body) {
      clearTimeout(timer);
      timer = limit(STALLED, "nothing came any more");
      await writeAll(file, piece);
      onProgress({ file: name, bytes: at += piece.length, total });
    }
  } finally {
    clearTimeout(timer);
  }
  if (total === undefined || at === total) return;
  if (at < total) throw new Error(`only ${at} of ${total} bytes came`);
  file.truncateSync(0);
  throw new CheckpointError(`${at} bytes came, and the hub describes a file of ${total}`);
}

/** By the length of its ETag a file's SHA-256, or the SHA-1 that git names it by; undefined where it is something else. */
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
