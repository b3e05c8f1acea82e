/**
 * Runs a function from a file in a worker without permissions: it cannot access files, the network or the environment.
 *
 * There are two nested workers. The inner one runs the function. It is a web worker, because only web workers can run
 * without permissions. Deno cannot end a web worker in an endless loop, and such a worker would keep the process alive.
 * The outer worker is therefore a Node thread, which does not keep the process alive.
 */
import type { Words } from "../data/examples.ts";
import { ConfigError, TrainingError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { shown } from "../files/shown.ts";
import { builtin } from "../files/system.ts";

/** A completion to be scored. */
export interface Sample {
  /** The prompt. */ readonly prompt: Words;
  /** The policy's completion, without special tokens. */ readonly completion: string;
  /** The tokens of prompt and completion, including special tokens. */ readonly ids: Int32Array;
  /** The number of tokens in the prompt. */ readonly from: number;
  /** Whether the completion has its end token, and was not cut off. */ readonly ended: boolean;
  /** The further columns of the prompt's row. */ readonly more?: Readonly<Record<string, unknown>>;
}

/** The end of an error message, which names the sample's prompt. */
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

/** Messages from the worker. `of` is the number of the request, `at` the index of the sample being scored. */
type FromWorker =
  | { readonly ready: true }
  | { readonly unusable: string }
  | { readonly of: number; readonly at: number }
  | { readonly of: number; readonly scores: Float64Array }
  | { readonly of: number; readonly at: number; readonly failed: string };

/**
 * The source of the inner worker. It imports the function's file by a literal name, because such an import needs no
 * permission.
 */
const innerSource = (url: string) =>
  `let score;
try {
  const { default: found } = await import(${JSON.stringify(url)});
  if (typeof found !== "function") throw new Error("its default export is not a function");
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
      return fail((error?.name === "NotCapable" ? "tried something that it has no permission for: " : "has failed: ") + message);
    }
  }
  postMessage({ of, scores });
};`;

/** The source of the outer worker, which passes messages between the process and the inner worker. */
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

/** The time limit for loading the function is at least this long, in seconds: its imports may have to be downloaded. */
const LOADING = 30;

/** The time limit of a call is measured in this many ticks of a timer. */
const TICKS = 20;

/** A function from a file. The first call starts the worker; if the worker was ended, the next call starts a new one. */
export class RewardWorker implements Disposable {
  readonly #turns = new Turns();
  #thread: Promise<Thread> | undefined;
  #hear: ((message: FromWorker) => void) | undefined;
  #request = 0;

  /**
   * Stores the options. The worker is started later.
   * @param path a module whose default export is the function
   * @param seconds time limit of a call
   */
  constructor(readonly path: string, readonly seconds: number) {}

  /** Starts the worker, unless it is running. @throws {ConfigError} when the file cannot be used */
  async open(): Promise<void> {
    await (this.#thread ??= this.#start());
  }

  /**
   * Calls the function for each sample, one after the other.
   *
   * @throws {TrainingError} naming the prompt, when the function fails, does not return a finite number, or takes too
   *   long, in which case the worker is ended
   * @throws the reason of `signal` when it aborts
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
      // Counts ticks instead of reading the clock: while the process is suspended (Ctrl-Z), there are no ticks, so a call
      // does not time out when the process continues.
      const timer = setInterval(() => {
        if (++ticks < TICKS) return;
        end();
        fail(`takes more than ${this.seconds} seconds for one completion`);
      }, 1000 * this.seconds / TICKS);
      this.#hear = (message) => {
        if ("unusable" in message) (end(), fail(`has failed: ${message.unusable}`)); // an error outside of a call, such as in a timer
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
      throw new ConfigError("Reward functions from files run only in Deno; elsewhere, pass a function to plainReward");
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
