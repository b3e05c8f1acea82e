/**
 * A worker for a parser that works on what comes from elsewhere: its heap is bounded, and so is its time. It has no files and no
 * network: what it reads, this thread reads for it.
 *
 * Deno gives such workers the permissions of the process; so what reaches files and the network is deleted before the first request.
 */
import { DataError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { builtin } from "../files/system.ts";
import { importPackage, type PackageName, specifierOf } from "../packages.ts";

/** What a worker may take. */
export interface WorkerLimits {
  /** Of its heap. */ readonly megabytes: number;
}

/** Asks this thread for something while a request is answered. @returns what `answer` gave */
export type Ask = (question: unknown) => Promise<unknown>;

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
) => (request: Request, ask: Ask) => Reply | Promise<Reply>;

/** How long a request may take, and what answers the questions that the worker has meanwhile. */
export interface AskOptions {
  readonly seconds: number;
  answer?(question: unknown): Promise<unknown>;
}

/** A message is of the request with this number; a number below says which of its questions is meant. */
type ToWorker<Request> =
  & { readonly of: number }
  & ({ readonly request: Request } | { readonly ping: number } | { readonly id: number; readonly answer: unknown });
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

/** Runs in the worker: as `serve`, a text of its own. */
async function connect<Request, Reply>(serve: Serve<Request, Reply>, specifier: string): Promise<void> {
  const { parentPort } = process.getBuiltinModule("node:worker_threads"), handle = serve(await import(specifier));
  const waiting = new Map<number, (answer: unknown) => void>();
  let asked = 0;
  // A parser that works on several parts at once does not wait for those that fail after the first.
  globalThis.addEventListener?.("unhandledrejection", (event) => event.preventDefault());
  process.on("unhandledRejection", () => {});
  for (const name of ["Deno", "process", "fetch", "Worker", "WebSocket", "EventSource", "navigator", "caches"]) {
    delete (globalThis as Record<string, unknown>)[name];
  }
  parentPort!.on("message", async (message: ToWorker<Request>) => {
    const { of } = message, post = (what: Record<string, unknown>) => parentPort!.postMessage({ of, ...what });
    // When all that goes on at once is done: messages may come in between two steps of it.
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
      await undefined; // within the listener itself Deno would end the worker's loop where the heap is full, and say nothing
      post({ reply: await handle(message.request, ask) });
    } catch (error) {
      post({ failed: (error as Error).message });
    }
  });
  parentPort!.postMessage({ of: 0, idle: 0 }); // it listens
}

/** Answers requests one after the other. The worker is made at the first, and anew after one that was ended. */
export class BoundedWorker<Request, Reply> implements Disposable {
  readonly #turns = new Turns();
  #worker: NodeWorker | undefined;
  /** The number of the last request. */
  #request = 0;
  #hear: ((message: FromWorker) => void) | undefined;

  /** @param name of the package that `serve` works with; it is fetched at the first request */
  constructor(readonly name: PackageName, readonly serve: Serve<Request, Reply>, readonly limits: WorkerLimits) {}

  /**
   * @throws {Error} with what the worker says, or that it took too long or too much
   * @throws {DataError} where the package cannot be had
   */
  ask(request: Request, { seconds, answer }: AskOptions): Promise<Reply> {
    return this.#turns.take(async () => {
      const worker = this.#worker ??= await this.#start(), ended = Promise.withResolvers<Reply>();
      const of = ++this.#request;
      let open = 0, said = 0; // questions without an answer yet, and answers
      this.#hear = (message) => {
        if (message.of !== of) return; // of a request that has failed
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
            this.#end(""); // it waits for an answer that will not come
          });
        }
      };
      // A worker whose heap is full is ended in Node. In Deno the request is given up, sometimes without any event. Such a worker
      // answers pings, though it has neither replied nor asked anything.
      const ping = setInterval(() => open === 0 && worker.postMessage({ of, ping: said }), 250);
      const timer = setTimeout(() => this.#end(`takes more than ${seconds} seconds`), 1000 * seconds);
      try {
        worker.postMessage({ of, request });
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
      await importPackage(this.name); // here, where an error has a message
    } catch (error) {
      throw new DataError(`The package ${this.name} cannot be had: ${(error as Error).message}`);
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
    await ready.promise; // a message that came before it listens would be lost, and a request's time does not count what it takes to begin
    worker.unref();
    return worker;
  }

  get #tooMuch(): string {
    return `takes more than ${this.limits.megabytes} MB of memory`;
  }

  #end(failed: string): void {
    const worker = this.#worker;
    this.#worker = undefined; // before `exit` comes
    void worker?.terminate();
    this.#hear?.({ of: this.#request, failed });
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#end("was disposed while it worked");
  }
}
