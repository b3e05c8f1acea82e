import { DataError } from "../errors.ts";
import type { EncodeRange, EncodeReply, EncodeSetup } from "./encode_worker.ts";

interface Waiting {
  resolve(ids: Uint8Array<ArrayBuffer>): void;
  reject(error: Error): void;
}

/** Workers that encode ranges of a text file, each in turn. */
export class EncodePool implements Disposable {
  readonly #workers: { worker: Worker; waiting: Waiting[] }[] = [];
  #next = 0;

  constructor(threads: number, setup: EncodeSetup) {
    for (let i = 0; i < threads; i++) {
      const worker = new Worker(new URL("./encode_worker.ts", import.meta.url), { type: "module" }),
        waiting: Waiting[] = [];
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

  /** The ids of a range of the file, as bytes. @throws {DataError} when the text cannot be encoded */
  encode(range: EncodeRange): Promise<Uint8Array<ArrayBuffer>> {
    const { worker, waiting } = this.#workers[this.#next++ % this.#workers.length];
    return new Promise((resolve, reject) => {
      waiting.push({ resolve, reject });
      worker.postMessage(range);
    });
  }

  [Symbol.dispose](): void {
    for (const { worker } of this.#workers) worker.terminate();
  }
}
