import { DataError } from "../errors.ts";
import { tokenizerFromJSON } from "../tokenizer/load.ts";
import type { EncodeOptions } from "../tokenizer/tokenizer.ts";
import { TextFile } from "./text_file.ts";
import type { TokenType } from "./tokens.ts";

/** The settings of an encoder. */
export interface EncodeSetup {
  readonly path: string;
  /** The result of the tokenizer's `toJSON`. */
  readonly tokenizer: Record<string, unknown>;
  readonly options: EncodeOptions;
  readonly type: TokenType;
}

/** A range of bytes of the text: from `begin` to before `end`. */
export interface EncodeRange {
  readonly begin: number;
  readonly end: number;
}

/** The ids of a range in the format of the output file, or the message of an error. */
export type EncodeReply = { readonly ids: Uint8Array<ArrayBuffer> } | { readonly error: string };
export type Encode = Disposable & ((range: EncodeRange) => Uint8Array<ArrayBuffer>);

/**
 * Creates a function that encodes ranges of a file. It runs in workers, or in Node in the calling thread.
 */
export async function encoder({ path, tokenizer: json, options, type }: EncodeSetup): Promise<Encode> {
  const tokenizer = await tokenizerFromJSON(json), file = TextFile.open(path);
  const encode = ({ begin, end }: EncodeRange) => {
    const ids = tokenizer.encode(file.text(begin, end), options);
    return new Uint8Array((type === "uint16" ? Uint16Array.from(ids) : ids).buffer);
  };
  return Object.assign(encode, { [Symbol.dispose]: () => file[Symbol.dispose]() });
}

/**
 * Workers that encode ranges of a text file; each worker gets the next range in turn. Node has no web workers, so there
 * the calling thread encodes.
 */
export class EncodePool implements Disposable {
  readonly #workers: { worker: Worker; waiting: PromiseWithResolvers<Uint8Array<ArrayBuffer>>[] }[] = [];
  readonly #here: Promise<Encode> | undefined;
  #next = 0;

  constructor(threads: number, setup: EncodeSetup) {
    if (!("Worker" in globalThis)) {
      this.#here = encoder(setup);
      this.#here.catch(() => {}); // every call of encode() will throw this error
      return;
    }
    for (let i = 0; i < threads; i++) {
      const worker = new Worker(new URL("./encode_worker.ts", import.meta.url), { type: "module" }),
        waiting: PromiseWithResolvers<Uint8Array<ArrayBuffer>>[] = [];
      worker.onmessage = ({ data }: MessageEvent<EncodeReply>) => { // replies come in the order of the requests
        const { resolve, reject } = waiting.shift()!;
        if ("ids" in data) resolve(data.ids);
        else reject(new DataError(data.error));
      };
      worker.onerror = (event) => {
        event.preventDefault();
        for (const { reject } of waiting.splice(0)) reject(new DataError(`A worker has failed: ${event.message}`));
      };
      worker.postMessage(setup);
      this.#workers.push({ worker, waiting });
    }
  }

  get threads(): number {
    return this.#workers.length;
  }

  /**
   * The ids of a range of the file, as bytes of the output file.
   * @throws {DataError} when the text cannot be encoded
   */
  encode(range: EncodeRange): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#here) return this.#here.then((encode) => encode(range));
    const { worker, waiting } = this.#workers[this.#next++ % this.#workers.length];
    const encoded = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
    waiting.push(encoded);
    worker.postMessage(range);
    return encoded.promise;
  }

  [Symbol.dispose](): void {
    for (const { worker } of this.#workers) worker.terminate();
    this.#here?.then((encode) => encode[Symbol.dispose](), () => {});
  }
}
