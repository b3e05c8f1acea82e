/**
 * A worker thread that runs a parser on untrusted input, with limits on its heap and on the time of a request. It can
 * reach neither files nor the network: it asks the calling thread for the bytes it needs.
 *
 * Deno gives Node's worker threads the permissions of the process. So the worker deletes the globals that give access
 * to files and the network before it handles its first request.
 */
import { DataError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { builtin } from "../files/system.ts";
import { importPackage, type PackageName, specifierOf } from "../packages.ts";

/** Limits of a worker. */
export interface WorkerLimits {
  /** Largest heap, in MB. */ readonly megabytes: number;
}

/**
 * Called in the worker while it handles a request: sends a question to the calling thread.
 * @returns the result of `AskOptions.answer`
 */
export type Ask = (question: unknown) => Promise<unknown>;

/**
 * The worker's code. The function is sent to the worker as source text, so it must not use anything defined outside
 * itself. The only thing it may wait for is the answer to a question.
 *
 * @param module the imported npm package
 * @returns the function that handles a request; if it throws, the caller of `BoundedWorker.ask` gets the error's message
 */
export type Serve<Request, Reply> = (
  // deno-lint-ignore no-explicit-any -- modules without types
  module: any,
) => (request: Request, ask: Ask) => Reply | Promise<Reply>;

/** Options of a request. */
export interface AskOptions {
  /** Time limit of the request. */
  readonly seconds: number;
  /** Answers the questions that the worker asks while it handles the request. */
  answer?(question: unknown): Promise<unknown>;
}

/** A message to the worker. `of` is the number of the request, `id` the number of a question within it. */
type ToWorker<Request> =
  & { readonly of: number }
  & (
    | { readonly request: Request; readonly milliseconds: number }
    | { readonly ping: number }
    | { readonly id: number; readonly answer: unknown }
  );
type FromWorker =
  & { readonly of: number }
  & (
    | { readonly idle: number }
    | { readonly question: unknown; readonly id: number }
    | { readonly reply: unknown }
    | { readonly failed: string }
  );

interface NodeWorker {
  on(event: string, listener: (value: FromWorker) => void): void;
  postMessage(message: ToWorker<unknown>, transfer?: readonly ArrayBuffer[]): void;
  unref(): void;
  terminate(): Promise<number>;
}
interface Threads {
  readonly Worker: new (source: URL, options: Record<string, unknown>) => NodeWorker;
}

/** The worker's main program. Like `serve`, it is sent as source text. */
async function connect<Request, Reply>(serve: Serve<Request, Reply>, specifier: string): Promise<void> {
  const { parentPort } = process.getBuiltinModule("node:worker_threads"), handle = serve(await import(specifier));
  const run = new (process.getBuiltinModule("node:vm").Script)("run()");
  const waiting = new Map<number, (answer: unknown) => void>();
  let asked = 0;
  // A parser that reads several parts at once stops awaiting them when one has failed, so later failures have no
  // handler.
  globalThis.addEventListener?.("unhandledrejection", (event) => event.preventDefault());
  process.on("unhandledRejection", () => {});
  for (const name of ["Deno", "process", "fetch", "Worker", "WebSocket", "EventSource", "navigator", "caches"]) {
    delete (globalThis as Record<string, unknown>)[name];
  }
  parentPort!.on("message", async (message: ToWorker<Request>) => {
    const { of } = message, post = (what: Record<string, unknown>) => parentPort!.postMessage({ of, ...what });
    // A timer fires only after all pending promise callbacks have run. So the worker is idle when it answers the ping,
    // and not between two steps of a request.
    if ("ping" in message) return setTimeout(() => post({ idle: message.ping }), 0);
    if ("id" in message) {
      waiting.get(message.id)!(message.answer);
      return waiting.delete(message.id);
    }
    const ask = (question: unknown) =>
      new Promise<unknown>((resolve) => {
        waiting.set(++asked, resolve);
        post({ question, id: asked });
      });
    try {
      // If the heap filled up before the listener returns, Deno would end the worker without any event.
      await undefined;
      // In Deno, a thread that is ended in an endless loop goes on with it. node:vm ends a loop before the first await.
      Object.assign(globalThis, { run: () => handle(message.request, ask) });
      post({ reply: await run.runInThisContext({ timeout: message.milliseconds }) });
    } catch (error) {
      post({ failed: (error as Error).message });
    }
  });
  parentPort!.postMessage({ of: 0, idle: 0 }); // the worker is ready
}

/**
 * Sends requests to a worker, one after the other. The first request starts the worker. If a request exceeds a limit,
 * the worker is ended, and the next request starts a new one.
 */
export class BoundedWorker<Request, Reply> implements Disposable {
  readonly #turns = new Turns();
  #worker: NodeWorker | undefined;
  /** The number of the last request. */
  #request = 0;
  #hear: ((message: FromWorker) => void) | undefined;

  /** @param name npm package that `serve` uses; it is downloaded with the first request */
  constructor(readonly name: PackageName, readonly serve: Serve<Request, Reply>, readonly limits: WorkerLimits) {}

  /**
   * Sends a request and waits for its reply.
   *
   * @throws {Error} when the worker throws, takes too long or uses too much memory
   * @throws {DataError} when the package cannot be loaded
   */
  ask(request: Request, { seconds, answer }: AskOptions): Promise<Reply> {
    return this.#turns.take(async () => {
      const worker = this.#worker ??= await this.#start(), ended = Promise.withResolvers<Reply>();
      const of = ++this.#request;
      let open = 0, said = 0; // numbers of the worker's unanswered and answered questions
      this.#hear = (message) => {
        if (message.of !== of) return; // the message belongs to an earlier request, which failed
        if ("idle" in message) {
          if (open === 0 && message.idle === said) this.#end(this.#tooMuch);
        } else if ("reply" in message) ended.resolve(message.reply as Reply);
        else if ("failed" in message) ended.reject(new Error(message.failed));
        else {
          open++;
          answer!(message.question).then((answer) => {
            open--;
            said++;
            worker.postMessage({ of, id: message.id, answer }, answer instanceof ArrayBuffer ? [answer] : []);
          }, (error) => {
            ended.reject(error);
            this.#end(""); // the worker would wait forever for this answer
          });
        }
      };
      // When the heap is full, Node ends the worker. Deno stops the code that handles the request, sometimes without any
      // event, but the worker still answers pings. So if the worker answers a ping although it has not replied to the
      // request and waits for no answer of ours, its heap is full.
      const ping = setInterval(() => open === 0 && worker.postMessage({ of, ping: said }), 250);
      const timer = setTimeout(() => this.#end(`takes more than ${seconds} seconds`), 1000 * seconds);
      try {
        worker.postMessage({ of, request, milliseconds: Math.ceil(2000 * seconds) }); // later than the timer above
        return await ended.promise;
      } finally {
        clearTimeout(timer);
        clearInterval(ping);
        this.#hear = undefined;
      }
    });
  }

  async #start(): Promise<NodeWorker> {
    try {
      await importPackage(this.name); // an error in this thread has a more useful message than one in the worker
    } catch (error) {
      throw new DataError(`Cannot load the package ${this.name}: ${(error as Error).message}`);
    }
    const specifier = specifierOf(this.name), { Worker } = builtin<Threads>("node:worker_threads");
    const resolved = "Deno" in globalThis ? specifier : import.meta.resolve(specifier);
    const source = `(${connect})(${this.serve}, ${JSON.stringify(resolved)})`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
      resourceLimits: { maxOldGenerationSizeMb: this.limits.megabytes },
      env: {},
    });
    const ready = Promise.withResolvers<void>();
    worker.on("message", (message) => message.of === 0 ? ready.resolve() : this.#hear?.(message));
    const ended = () => {
      ready.reject(new Error(this.#tooMuch));
      if (this.#worker === worker) this.#end(this.#tooMuch);
    };
    worker.on("error", ended);
    worker.on("exit", ended);
    // A message sent earlier would be lost. Also, the time limit of a request does not include the start of the worker.
    await ready.promise;
    worker.unref();
    return worker;
  }

  get #tooMuch(): string {
    return `takes more than ${this.limits.megabytes} MB of memory`;
  }

  #end(failed: string): void {
    const worker = this.#worker;
    this.#worker = undefined; // first, because the `exit` event calls this method again
    void worker?.terminate();
    this.#hear?.({ of: this.#request, failed });
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#end("was disposed while it worked");
  }
}
