/**
 * A worker for a parser that works on what comes from elsewhere: its heap is bounded, and so is its time. It has no files and no
 * network: what it reads, this thread reads for it.
 *
 * Deno gives such workers the permissions of the process; so what reaches files and the network is deleted before the first request.
 */
import { Turns } from "../files/files.ts";
import { builtin } from "../files/system.ts";
import { importPackage, type PackageName, specifierOf } from "../packages.ts";

/** What a worker may take. */
export interface WorkerLimits {
  /** Of its heap. */ readonly megabytes: number;
}

/** What stands on the worker's side: how it asks this thread for something while it answers. */
export interface WorkerSide {
  /** @returns what `answer` gave */ ask(question: unknown): Promise<unknown>;
}

/**
 * What a worker does. The function is also its source text, so it uses nothing from outside itself, and it waits for nothing but
 * answers to what it asks.
 *
 * @param module the package
 * @returns what answers a request; what it throws is the failure's message
 */
export type Serve<Request, Reply> = (
  // deno-lint-ignore no-explicit-any -- modules without types
  module: any,
  side: WorkerSide,
) => (request: Request) => Reply | Promise<Reply>;

/** How long a request may take, and what answers the questions that the worker has meanwhile. */
export interface AskOptions {
  readonly seconds: number;
  answer?(question: unknown): Promise<unknown>;
}

type FromWorker = { readonly idle: number } | { readonly question: unknown } | { readonly reply: unknown } | {
  readonly failed: string;
};

interface NodeWorker {
  on(event: string, listener: (value: FromWorker) => void): void;
  postMessage(message: unknown): void;
  unref(): void;
  terminate(): Promise<number>;
}
interface Threads {
  readonly Worker: new (source: URL, options: Record<string, unknown>) => NodeWorker;
}

/** Runs in the worker: as `serve`, a text of its own. */
async function connect<Request, Reply>(serve: Serve<Request, Reply>, specifier: string): Promise<void> {
  const { parentPort } = process.getBuiltinModule("node:worker_threads"), module = await import(specifier);
  let answered: ((answer: unknown) => void) | undefined;
  const ask = (question: unknown) =>
    new Promise<unknown>((resolve) => {
      answered = resolve;
      parentPort!.postMessage({ question });
    });
  const handle = serve(module, { ask });
  for (const name of ["Deno", "process", "fetch", "Worker", "WebSocket", "EventSource", "navigator", "caches"]) {
    delete (globalThis as Record<string, unknown>)[name];
  }
  parentPort!.on("message", async (message: { request: Request } | { answer: unknown } | { ping: number }) => {
    if ("ping" in message) return parentPort!.postMessage({ idle: message.ping });
    if ("answer" in message) return answered!(message.answer);
    try {
      await undefined; // within the listener itself Deno would end the worker's loop where the heap is full, and say nothing
      parentPort!.postMessage({ reply: await handle(message.request) });
    } catch (error) {
      parentPort!.postMessage({ failed: (error as Error).message });
    }
  });
}

/** Answers requests one after the other. The worker is made at the first, and anew after one that was ended. */
export class BoundedWorker<Request, Reply> implements Disposable {
  readonly #turns = new Turns();
  #worker: NodeWorker | undefined;
  /** How many requests and answers the worker was sent: what it says of older ones does not count. */
  #said = 0;
  #hear: ((message: FromWorker) => void) | undefined;

  /** @param name of the package that `serve` works with; it is fetched at the first request */
  constructor(readonly name: PackageName, readonly serve: Serve<Request, Reply>, readonly limits: WorkerLimits) {}

  /** @throws {Error} with what the worker says, or that it took too long or too much; the first time also where the package cannot be had */
  ask(request: Request, { seconds, answer }: AskOptions): Promise<Reply> {
    return this.#turns.take(async () => {
      const worker = this.#worker ??= await this.#start(), ended = Promise.withResolvers<Reply>();
      let asked = false;
      this.#hear = (message) => {
        if ("idle" in message) {
          if (!asked && message.idle === this.#said) this.#end(this.#tooMuch);
        } else if ("reply" in message) ended.resolve(message.reply as Reply);
        else if ("failed" in message) ended.reject(new Error(message.failed));
        else {
          asked = true;
          answer!(message.question).then((answer) => {
            asked = false;
            this.#said++;
            worker.postMessage({ answer });
          }, ended.reject);
        }
      };
      // A worker whose heap is full is ended in Node. In Deno what it does is given up, and that may be told by nothing: then it
      // waits for messages without having answered, and without waiting for an answer.
      const ping = setInterval(() => !asked && worker.postMessage({ ping: this.#said }), 250);
      const timer = setTimeout(() => this.#end(`takes more than ${seconds} seconds`), 1000 * seconds);
      try {
        this.#said++;
        worker.postMessage({ request });
        return await ended.promise;
      } catch (error) {
        // While the worker waits for an answer that will not come it is of no use.
        if (this.#worker === worker) this.#end("");
        throw error;
      } finally {
        clearTimeout(timer);
        clearInterval(ping);
        this.#hear = undefined;
      }
    });
  }

  async #start(): Promise<NodeWorker> {
    try {
      await importPackage(this.name); // here, where an error has a message
    } catch (error) {
      throw new Error(`the package ${this.name} cannot be had: ${(error as Error).message}`);
    }
    const specifier = specifierOf(this.name), { Worker } = builtin<Threads>("node:worker_threads");
    const resolved = "Deno" in globalThis ? specifier : import.meta.resolve(specifier);
    const source = `(${connect})(${this.serve}, ${JSON.stringify(resolved)})`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
      resourceLimits: { maxOldGenerationSizeMb: this.limits.megabytes },
      env: {},
    });
    worker.unref();
    worker.on("message", (message) => this.#hear?.(message));
    const ended = () => this.#worker === worker && this.#end(this.#tooMuch);
    worker.on("error", ended);
    worker.on("exit", ended);
    return worker;
  }

  get #tooMuch(): string {
    return `takes more than ${this.limits.megabytes} MB of memory`;
  }

  #end(failed: string): void {
    const worker = this.#worker;
    this.#worker = undefined; // before `exit` comes
    void worker?.terminate();
    this.#hear?.({ failed });
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#end("was disposed while it worked");
  }
}
