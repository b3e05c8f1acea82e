/**
 * Authenticates requests by their key and by the headers that say from which page and machine a request comes. No other
 * module decides about access. A request that no rule allows is refused.
 *
 * Web pages in the user's browser can reach a server on the same machine: through a name that resolves to 127.0.0.1
 * (DNS rebinding), and by cross-origin requests. So `Host` must be a name of this machine, and `Origin`, if present,
 * must be the server's own.
 */
import type * as NodeCrypto from "node:crypto";
import { CheckpointError, ConfigError } from "../errors.ts";
import { exists, isObject, readJson, replaceFile } from "../files/files.ts";
import { builtin, system } from "../files/system.ts";
import { ApiError } from "./errors.ts";

/** A key in the file. */
interface StoredKey {
  readonly id: string;
  readonly name: string;
  /** SHA-256 of the key in hexadecimal. A key has 256 random bits, so a slower hash is not needed. */
  readonly hash: string;
  /** When the key was created, in seconds since 1970. */
  readonly created: number;
}

const hashOf = (key: string): Uint8Array =>
  builtin<typeof NodeCrypto>("node:crypto").createHash("sha256").update(key).digest();

/** The server's keys. Their file holds only hashes. */
export class KeyRing {
  #keys: readonly StoredKey[] = [];
  #hashes: readonly Uint8Array[] = [];
  #looked = -Infinity;
  #changed = NaN;

  private constructor(readonly path: string) {}

  /**
   * Reads the file, if it exists.
   *
   * @throws {CheckpointError} if the file is damaged
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
   * Creates a key. It cannot be shown again, because only its hash is stored.
   *
   * @throws {CheckpointError} if the file cannot be written
   */
  async make(name: string): Promise<{ readonly id: string; readonly key: string }> {
    await this.#read();
    const id = `key-${random(6)}`, key = `sk-nanogpt-${random(32)}`, hash = hashOf(key).toHex();
    await this.#write([...this.#keys, { id, name, hash, created: Math.floor(Date.now() / 1000) }]);
    return { id, key };
  }

  /**
   * Revokes a key. A running server notices it within a second.
   *
   * @throws {ConfigError} if there is no key with this id
   * @throws {CheckpointError} if the file cannot be written
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

  /**
   * Returns a key's id; undefined if the key is unknown. It is compared with all stored keys, each in constant time.
   */
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
 * Who may use a route. `open`: everyone. `local`: clients on this machine, and other clients with a key. `key`: clients
 * with a key.
 */
export type Audience = "open" | "local" | "key";

/** The address and the keys of a server. */
export interface AccessOptions {
  readonly keys?: KeyRing;
  /** The address that the server listens on. */
  readonly hostname: string;
  /** The name (and port) under which a reverse proxy publishes the server. If set, no client counts as local. */
  readonly publicHost?: string;
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i, ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\])$/i;
/** Whether an address can only be reached from this machine. */
export const isLoopback = (hostname: string): boolean => LOOPBACK.test(hostname) || hostname === "::1";
/** Headers that proxies add. */
const FORWARDED = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/** Decides whether a request is answered. */
export class Access {
  constructor(readonly options: AccessOptions) {}

  /**
   * Authenticates a request.
   *
   * @returns the key's id; undefined if the request has no valid key and the route needs none
   * @throws {ApiError} 401 if a needed key is missing or invalid, 403 for a host or an origin that is not the server's
   */
  async admit({ headers, method }: Request, audience: Audience): Promise<string | undefined> {
    const { hostname, publicHost, keys } = this.options, host = headers.get("host") ?? "";
    const name = host.replace(/:\d*$/, ""), local = isLoopback(hostname);
    const known = host === publicHost || LOOPBACK.test(name) || (!local && ADDRESS.test(name));
    if (!known) {
      throw new ApiError(403, `The Host header does not name this server. ${HOW}`, {
        code: "wrong_host",
      });
    }
    const origin = headers.get("origin");
    const link = method === "GET" && headers.get("sec-fetch-mode") === "navigate";
    const foreign = headers.get("sec-fetch-site") === "cross-site" && !link;
    if (origin !== null && !this.#own(origin, host) || foreign) {
      throw new ApiError(403, "Requests from other sites are refused: the Origin is not this server's", {
        code: "wrong_origin",
      });
    }
    const [, key] = /^bearer +(\S{1,200}) *$/i.exec(headers.get("authorization") ?? "") ?? [];
    const id = key && await keys?.find(key);
    if (id) return id;
    if (audience === "open") return;
    const here = local && publicHost === undefined && !FORWARDED.some((header) => headers.has(header));
    if (audience === "local" && here) return;
    throw new ApiError(401, `A valid key of this server is required: Authorization: Bearer KEY`, {
      code: "invalid_api_key",
    });
  }

  #own(origin: string, host: string): boolean {
    const [, of] = /^https?:\/\/([^/]+)$/i.exec(origin) ?? [];
    return of !== undefined && (of === host || of === this.options.publicHost);
  }
}

const HOW = "Use the server's address, or start it with --public_host=NAME if a proxy publishes it under another name";
