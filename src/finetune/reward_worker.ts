/**
 * Runs a function out of a file in a worker that has no permissions: it computes, and neither reads nor writes, nor calls anybody.
 *
 * Two workers stand one in the other. The inner one has the function; it is a web worker, for these alone can be without
 * permissions. The outer one is a thread that does not keep the process alive: a web worker in an endless loop would, for Deno ends
 * none that does not listen.
 */
import type { Words } from "../data/examples.ts";
import { ConfigError, TrainingError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { shown } from "../files/shown.ts";
import { builtin } from "../files/system.ts";

/** A text to be scored. */
export interface Sample {
  /** What the policy was asked. */ readonly prompt: Words;
  /** What it wrote, without special tokens. */ readonly completion: string;
  /** The tokens of both, special ones too. */ readonly ids: Int32Array;
  /** How many of them are the prompt's. */ readonly from: number;
  /** Whether the policy ended the text itself, rather than run out of room. */ readonly ended: boolean;
  /** The other columns of the prompt's row. */ readonly more?: Readonly<Record<string, unknown>>;
}

/** Which sample a message is about. */
export const afterPrompt = ({ prompt }: Sample): string => {
  const text = typeof prompt === "string" ? prompt : prompt.at(-1)?.content ?? "";
  return `after the prompt "${shown(text)}"`;
};

interface Thread {
  on(event: "message", listener: (message: FromWorker) => void): void;
  postMessage(message: { readonly of: number; readonly samples: readonly Sample[] }): void;
  unref(): void;
  terminate(): Promise<number>;
}

/** Messages are of the request with a number, and say at which of its samples the function is. */
type FromWorker =
  | { readonly ready: true }
  | { readonly unusable: string }
  | { readonly of: number; readonly at: number }
  | { readonly of: number; readonly scores: Float64Array }
  | { readonly of: number; readonly at: number; readonly failed: string };

/** The inner worker's text, which imports the file by its literal name: such an import needs no permission. */
const innerSource = (url: string) =>
  `let score;
try {
  const { default: found } = await import(${JSON.stringify(url)});
  if (typeof found !== "function") throw new Error("it exports no function by default");
  score = found;
  postMessage({ ready: true });
} catch (error) {
  const where = String(error?.message ?? error).replace(/\\n.*(?=\\n)/s, ""); // without the lines of the source
  postMessage({ unusable: where.replace(/\\s+/g, " ") });
}
self.onmessage = async ({ data: { of, samples } }) => {
  const scores = new Float64Array(samples.length);
  for (const [at, sample] of samples.entries()) {
    postMessage({ of, at });
    const fail = (failed) => postMessage({ of, at, failed });
    try {
      const given = scores[at] = await score(sample.prompt, sample.completion, sample);
      if (typeof given !== "number" || !Number.isFinite(given)) return fail("gives " + (typeof given === "string" ? JSON.stringify(given) : given) + ", expected a finite number");
    } catch (error) {
      const message = String(error?.message ?? error).replace(/, run again with .*|\\n.*/s, "");
      return fail((error?.name === "NotCapable" ? "was refused what it has no permission for: " : "has failed: ") + message);
    }
  }
  postMessage({ of, scores });
};`;

/** The outer worker's text: passes messages on. */
const outerSource = (inner: string) =>
  `const { parentPort } = process.getBuiltinModule("node:worker_threads");
const url = "data:text/javascript," + encodeURIComponent(${JSON.stringify(inner)});
const worker = new Worker(url, { type: "module", deno: { permissions: "none" } });
worker.onmessage = ({ data }) => parentPort.postMessage(data);
worker.onerror = (event) => {
  event.preventDefault();
  parentPort.postMessage({ unusable: event.message });
};
parentPort.on("message", (message) => worker.postMessage(message));`;

/** Seconds that loading may take, at least: of what is imported, some may have to be fetched. */
const LOADING = 30;

/** Parts of the time that a call has. */
const TICKS = 20;

/** A function out of a file. The worker is made at the first call, and anew after one that was ended. */
export class RewardWorker implements Disposable {
  readonly #turns = new Turns();
  #thread: Promise<Thread> | undefined;
  #hear: ((message: FromWorker) => void) | undefined;
  #request = 0;

  /**
   * Starts nothing yet.
   * @param path of a module whose default export is the function
   * @param seconds that a call may take
   */
  constructor(readonly path: string, readonly seconds: number) {}

  /** Starts the worker, so that a file that cannot be used is found out. @throws {ConfigError} */
  async open(): Promise<void> {
    await (this.#thread ??= this.#start());
  }

  /**
   * What the function gives for each sample, one after the other.
   *
   * @throws {TrainingError} naming the prompt, when it fails, gives no finite number, or takes too long: then it has been ended
   * @throws what `signal` gives for its reason, where it aborts
   */
  score(samples: readonly Sample[], { signal }: { signal?: AbortSignal } = {}): Promise<Float64Array> {
    return this.#turns.take(async () => {
      signal?.throwIfAborted();
      await this.open();
      const thread = await this.#thread!, of = ++this.#request, ended = Promise.withResolvers<Float64Array>();
      let at = 0, ticks = 0;
      const fail = (what: string) => {
        ended.reject(new TrainingError(`The reward function ${this.path} ${what}, ${afterPrompt(samples[at])}`));
      };
      const end = () => (this[Symbol.dispose](), undefined);
      // A process that stands still, as after Ctrl-Z, misses ticks; by the clock, its functions would be late when it goes on.
      const timer = setInterval(() => {
        if (++ticks < TICKS) return;
        end();
        fail(`takes more than ${this.seconds} seconds for one completion`);
      }, 1000 * this.seconds / TICKS);
      this.#hear = (message) => {
        if ("unusable" in message) (end(), fail(`has failed: ${message.unusable}`)); // outside of its own call
        else if ("ready" in message || message.of !== of) return;
        else if ("scores" in message) ended.resolve(message.scores);
        else {
          at = message.at;
          if ("failed" in message) fail(message.failed);
          else ticks = 0;
        }
      };
      const abort = () => (end(), ended.reject(signal!.reason));
      signal?.addEventListener("abort", abort);
      try {
        thread.postMessage({ of, samples });
        return await ended.promise;
      } finally {
        clearInterval(timer);
        signal?.removeEventListener("abort", abort);
        this.#hear = undefined;
      }
    });
  }

  async #start(): Promise<Thread> {
    if (!("Deno" in globalThis)) {
      throw new ConfigError("Reward functions out of files run in Deno alone: elsewhere plainReward takes a function");
    }
    const { Worker } = builtin<{ Worker: new (source: URL) => Thread }>("node:worker_threads");
    const { pathToFileURL } = builtin<{ pathToFileURL(path: string): URL }>("node:url");
    const source = outerSource(innerSource(pathToFileURL(this.path).href));
    const thread = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
    thread.unref();
    const { promise, resolve, reject } = Promise.withResolvers<Thread>();
    const unusable = (why: string) => {
      void thread.terminate();
      this.#thread = undefined;
      reject(new ConfigError(`${this.path} cannot be used as a reward function: ${why}`));
    };
    const seconds = Math.max(LOADING, this.seconds);
    const timer = setTimeout(() => unusable(`it takes more than ${seconds} seconds to load`), 1000 * seconds);
    this.#hear = (message) =>
      "ready" in message ? resolve(thread) : "unusable" in message && unusable(message.unusable);
    thread.on("message", (message) => this.#hear?.(message));
    return await promise.finally(() => clearTimeout(timer));
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    const thread = this.#thread;
    this.#thread = undefined;
    void thread?.then((thread) => thread.terminate(), () => {});
  }
}
