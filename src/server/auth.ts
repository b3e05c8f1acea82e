/**
 * Who may ask: keys, and what a request says of the page and the machine that it comes from. One place, which refuses what no rule
 * lets in.
 *
 * A server on this machine is reached from pages in its user's browser: by a name that resolves to 127.0.0.1 (DNS rebinding), and by
 * requests across origins. So `Host` has to be a name of this machine, and `Origin`, where there is one, the server's own.
 */
import type * as NodeCrypto from "node:crypto";
import { CheckpointError, ConfigError } from "../errors.ts";
import { exists, isObject, readJson, replaceFile } from "../files/files.ts";
import { builtin, system } from "../files/system.ts";
import { ApiError } from "./errors.ts";

/** What a key's holder is known by. */
interface StoredKey {
  readonly id: string;
  readonly name: string;
  /** SHA-256 of the key, in hexadecimal digits: it has 256 random bits, so nothing slower is needed. */
  readonly hash: string;
  /** Seconds since 1970. */
  readonly created: number;
}

const hashOf = (key: string): Uint8Array =>
  builtin<typeof NodeCrypto>("node:crypto").createHash("sha256").update(key).digest();

/** Keys, of which a file holds the hashes. */
export class KeyRing {
  #keys: readonly StoredKey[] = [];
  #hashes: readonly Uint8Array[] = [];
  #looked = -Infinity;
  #changed = NaN;

  private constructor(readonly path: string) {}

  /**
   * Reads the file, where there is one.
   *
   * @throws {CheckpointError} when it is damaged
   */
  static async open(path: string): Promise<KeyRing> {
    const ring = new KeyRing(path);
    await ring.#read();
    return ring;
  }

  /** Ids and names of the keys. */
  get keys(): readonly { readonly id: string; readonly name: string; readonly created: number }[] {
    return this.#keys.map(({ id, name, created }) => ({ id, name, created }));
  }

  /**
   * Makes a key; nothing can show it again.
   *
   * @throws {CheckpointError} when the file cannot be written
   */
  async make(name: string): Promise<{ readonly id: string; readonly key: string }> {
    await this.#read();
    const id = `key-${random(6)}`, key = `sk-nanogpt-${random(32)}`, hash = hashOf(key).toHex();
    await this.#write([...this.#keys, { id, name, hash, created: Math.floor(Date.now() / 1000) }]);
    return { id, key };
  }

  /**
   * Ends a key; a server that runs sees it within a second.
   *
   * @throws {ConfigError} when there is no key with this id
   * @throws {CheckpointError} when the file cannot be written
   */
  async revoke(id: string): Promise<void> {
    await this.#read();
    const rest = this.#keys.filter((key) => key.id !== id);
    if (rest.length === this.#keys.length) {
      const ids = this.#keys.map((key) => `${key.id} (${key.name})`).join(", ") || "none";
      throw new ConfigError(`There is no key ${id} in ${this.path}; keys: ${ids}`);
    }
    await this.#write(rest);
  }

  /** The id of a key's holder. All keys are compared, each in constant time. */
  async find(key: string): Promise<string | undefined> {
    await this.#refresh();
    const { timingSafeEqual } = builtin<typeof NodeCrypto>("node:crypto"), hash = hashOf(key);
    let found = -1;
    this.#hashes.forEach((other, i) => {
      if (timingSafeEqual(hash, other)) found = i;
    });
    return this.#keys[found]?.id;
  }

  async #refresh(): Promise<void> {
    if (performance.now() - this.#looked < 1000) return;
    this.#looked = performance.now();
    if (await this.#time() !== this.#changed) await this.#read();
  }
  async #time(): Promise<number> {
    return (await exists(this.path)) ? (await system.stat(this.path)).mtime?.getTime() ?? 0 : 0;
  }
  async #read(): Promise<void> {
    this.#changed = await this.#time();
    const { keys = [] } = await exists(this.path) ? await readJson(this.path) : {};
    if (!Array.isArray(keys) || !keys.every(isStored)) {
      throw new CheckpointError(`${this.path} is damaged: it does not hold keys`);
    }
    this.#keep(keys);
  }
  async #write(keys: readonly StoredKey[]): Promise<void> {
    await replaceFile(this.path, [new TextEncoder().encode(JSON.stringify({ keys }, null, 2) + "\n")]);
    this.#keep(keys);
    this.#changed = await this.#time();
  }
  #keep(keys: readonly StoredKey[]): void {
    this.#keys = keys;
    this.#hashes = keys.map(({ hash }) => Uint8Array.fromHex(hash));
  }
}

const random = (bytes: number): string =>
  crypto.getRandomValues(new Uint8Array(bytes)).toBase64({ alphabet: "base64url", omitPadding: true });
const isStored = (key: unknown): key is StoredKey =>
  isObject(key) && typeof key.id === "string" && typeof key.name === "string" && typeof key.created === "number" &&
  typeof key.hash === "string" && /^[0-9a-f]{64}$/.test(key.hash);

/**
 * Whom a route answers: `open`, everybody; `local`, whoever is on this machine, elsewhere whoever has a key; `key`, whoever has a key.
 */
export type Audience = "open" | "local" | "key";

/** Where a server stands. */
export interface AccessOptions {
  readonly keys?: KeyRing;
  /** The address that it listens on. */
  readonly hostname: string;
  /** The name, with a port where it has one, under which a proxy shows it. Then nothing is local. */
  readonly publicHost?: string;
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i, ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\])$/i;
/** Whether it is an address of this machine alone. */
export const isLoopback = (hostname: string): boolean => LOOPBACK.test(hostname) || hostname === "::1";
/** Headers of proxies. */
const FORWARDED = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/** Lets requests in. */
export class Access {
  constructor(readonly options: AccessOptions) {}

  /**
   * The key that a request comes with.
   *
   * @returns its id; undefined where the route needs none and none that counts is there
   * @throws {ApiError} 401 without a key that is needed, 403 for a host or an origin that is not the server's
   */
  async admit({ headers, method }: Request, audience: Audience): Promise<string | undefined> {
    const { hostname, publicHost, keys } = this.options, host = headers.get("host") ?? "";
    const name = host.replace(/:\d*$/, ""), local = isLoopback(hostname);
    const known = host === publicHost || LOOPBACK.test(name) || (!local && ADDRESS.test(name));
    if (!known) {
      throw new ApiError(403, `This server is not known under the name in the Host header. ${HOW}`, {
        code: "wrong_host",
      });
    }
    const origin = headers.get("origin");
    const link = method === "GET" && headers.get("sec-fetch-mode") === "navigate";
    const foreign = headers.get("sec-fetch-site") === "cross-site" && !link;
    if (origin !== null && !this.#own(origin, host) || foreign) {
      throw new ApiError(403, "Requests from other pages are not answered: the Origin is not this server's", {
        code: "wrong_origin",
      });
    }
    const [, key] = /^bearer +(\S{1,200}) *$/i.exec(headers.get("authorization") ?? "") ?? [];
    const id = key && await keys?.find(key);
    if (id) return id;
    if (audience === "open") return;
    const here = local && publicHost === undefined && !FORWARDED.some((header) => headers.has(header));
    if (audience === "local" && here) return;
    throw new ApiError(401, `This needs a key of this server: Authorization: Bearer KEY`, { code: "invalid_api_key" });
  }

  #own(origin: string, host: string): boolean {
    const [, of] = /^https?:\/\/([^/]+)$/i.exec(origin) ?? [];
    return of !== undefined && (of === host || of === this.options.publicHost);
  }
}

const HOW = "Use its address, or start it with --public_host=NAME where a proxy shows it under another name";
