/**
 * Renders chat templates in a worker, because a template is a program from elsewhere: a loop in it would stop everything here. The
 * interpreter of Jinja is the npm package `@huggingface/jinja`, which is fetched when a template is first rendered.
 *
 * A template gets data and four functions, and its interpreter evaluates no JavaScript. The worker's heap is bounded, its text too,
 * and a worker that does not answer in time is ended. Deno gives workers with a bounded heap the permissions of the process; so what
 * reaches files and the network is deleted in the worker before the first template runs.
 */
import { DataError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { builtin } from "../files/system.ts";
import { importPackage, specifierOf } from "../packages.ts";

/** What a template may take. */
export interface TemplateLimits {
  /** Until all texts of one request are there. Default 10. */
  readonly seconds?: number;
  /** Of the worker's heap. Default 256. */
  readonly megabytes?: number;
  /** In each text. Default 4 Mi. */
  readonly characters?: number;
}

/** How a chat is rendered once. */
export interface Rendering {
  /** How many of the messages there are. */
  readonly count: number;
  /** Whether the assistant's turn is begun. */
  readonly prompt: boolean;
  /** What stands where a part of the assistant's begins and ends. */
  readonly marks?: readonly [begin: string, end: string];
}

interface Request {
  readonly source: string;
  readonly variables: Readonly<Record<string, unknown>> & { readonly messages: readonly unknown[] };
  readonly renderings: readonly Rendering[];
  readonly characters: number;
  /** Milliseconds since 1970. */
  readonly now: number;
}
type Reply = { readonly texts: string[] } | { readonly failed: string };

interface Jinja {
  readonly Template: new (source: string) => { readonly parsed: unknown };
  readonly Environment: new () => { set(name: string, value: unknown): void };
  readonly Interpreter: new (environment: unknown) => { run(program: unknown): { readonly value: string } };
}
interface Port {
  on(event: "message", listener: (request: Request) => void): void;
  postMessage(reply: Reply): void;
}

/** What the worker does. This function is also its source text, so it uses nothing from outside itself. */
function serve({ Template, Environment, Interpreter }: Jinja, port: Port): void {
  const MONTHS = "January February March April May June July August September October November December".split(" ");
  const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
  for (const name of ["Deno", "process", "fetch", "Worker", "WebSocket", "EventSource", "navigator", "caches"]) {
    delete (globalThis as Record<string, unknown>)[name];
  }

  function strftime(format: string, now: Date): string {
    const two = (n: number) => String(n).padStart(2, "0"), month = MONTHS[now.getMonth()], day = DAYS[now.getDay()];
    const [Y, m, d] = [now.getFullYear(), now.getMonth() + 1, now.getDate()].map(two), H = two(now.getHours());
    const M = two(now.getMinutes()), S = two(now.getSeconds()), p = now.getHours() < 12 ? "AM" : "PM";
    const I = two((now.getHours() + 11) % 12 + 1), start = new Date(now.getFullYear(), 0, 1).getTime();
    const j = String(Math.round((new Date(now).setHours(0, 0, 0, 0) - start) / 864e5) + 1).padStart(3, "0");
    const parts: Record<string, string> = { Y, m, d, H, M, S, p, I, j, B: month, A: day, "%": "%" };
    Object.assign(parts, { b: month.slice(0, 3), a: day.slice(0, 3), y: two(now.getFullYear() % 100) });
    Object.assign(parts, { F: `${Y}-${m}-${d}`, T: `${H}:${M}:${S}` });
    return format.replace(/%(.)/g, (all, letter: string) => {
      if (parts[letter] === undefined) throw new Error(`strftime_now knows no ${all}`);
      return parts[letter];
    });
  }
  function range(start: number, stop?: number, step = 1): number[] {
    const numbers: number[] = [], [from, to] = stop === undefined ? [0, start] : [start, stop];
    if (step === 0) throw new Error("range: the step is 0");
    for (let n = from; step > 0 ? n < to : n > to; n += step) numbers.push(n);
    return numbers;
  }
  const constants = { true: true, false: false, none: null, True: true, False: false, None: null };
  const raise_exception = (message: unknown) => {
    throw new Error(`says: ${message}`);
  };

  let last: { source: string; parsed: unknown } | undefined;
  function render({ source, variables, renderings, characters, now }: Request): string[] {
    if (last?.source !== source) {
      try {
        last = { source, parsed: new Template(source).parsed };
      } catch (error) {
        throw new Error(`does not parse: ${(error as Error).message}`);
      }
    }
    return renderings.map(({ count, prompt, marks = ["", ""] }) => {
      const environment = new Environment(), strftime_now = (format: string) => strftime(format, new Date(now));
      const all: Record<string, unknown> = {
        ...variables,
        ...{ ...constants, raise_exception, strftime_now, range },
        messages: variables.messages.slice(0, count),
        add_generation_prompt: prompt,
        generation_begins: marks[0],
        generation_ends: marks[1],
      };
      for (const [name, value] of Object.entries(all)) environment.set(name, value);
      let text: string;
      try {
        text = new Interpreter(environment).run(last!.parsed).value;
      } catch (error) {
        const { message } = error as Error;
        throw new Error(message.startsWith("says: ") ? message : `fails: ${message}`);
      }
      if (text.length > characters) throw new Error(`gives more than ${characters} characters`);
      return text;
    });
  }

  port.on("message", (request) => {
    try {
      port.postMessage({ texts: render(request) });
    } catch (error) {
      port.postMessage({ failed: (error as Error).message });
    }
  });
}

interface NodeWorker {
  on(event: string, listener: (value: Reply) => void): void;
  postMessage(request: Request): void;
  unref(): void;
  terminate(): Promise<number>;
}

interface Threads {
  readonly Worker: new (source: URL, options: Record<string, unknown>) => NodeWorker;
}

/** Renders templates, one after the other. The worker is made at the first request, and anew after one that was ended. */
export class TemplateWorker implements Disposable {
  readonly #limits: Required<TemplateLimits>;
  readonly #turns = new Turns();
  #worker: NodeWorker | undefined;
  #answer: ((reply: Reply) => void) | undefined;

  constructor({ seconds = 10, megabytes = 256, characters = 2 ** 22 }: TemplateLimits = {}) {
    this.#limits = { seconds, megabytes, characters };
  }

  /**
   * The texts of a template, one for each rendering.
   *
   * @throws {DataError} when the template fails, says that the messages are not right, or does not come to its end; and where the
   *   package cannot be had
   */
  render(
    { name, now = new Date(), ...request }: Omit<Request, "characters" | "now"> & { name: string; now?: Date },
  ): Promise<string[]> {
    const { seconds, megabytes, characters } = this.#limits;
    return this.#turns.take(async () => {
      const worker = this.#worker ??= await this.#start(), answered = Promise.withResolvers<Reply>();
      this.#answer = answered.resolve;
      worker.postMessage({ ...request, characters, now: now.getTime() });
      const timer = setTimeout(() => {
        this.#end(`does not come to its end within ${seconds} seconds and ${megabytes} MB of memory`);
      }, 1000 * seconds);
      const reply = await answered.promise;
      clearTimeout(timer);
      this.#answer = undefined;
      if ("failed" in reply) throw new DataError(`${name} ${reply.failed}`);
      return reply.texts;
    });
  }

  async #start(): Promise<NodeWorker> {
    const name = "@huggingface/jinja", specifier = specifierOf(name);
    try {
      await importPackage(name); // fetched here, where an error has a message
      const { Worker } = builtin<Threads>("node:worker_threads");
      const source = `const { parentPort, workerData } = process.getBuiltinModule("node:worker_threads");
        (${serve})(await import(workerData), parentPort);`;
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
        workerData: "Deno" in globalThis ? specifier : import.meta.resolve(specifier),
        resourceLimits: { maxOldGenerationSizeMb: this.#limits.megabytes },
        env: {},
      });
      worker.unref();
      worker.on("message", (reply) => this.#answer?.(reply));
      // Node says so when the heap is full; Deno ends the worker in silence, and then its time runs out.
      const ended = () =>
        this.#worker === worker && this.#end(`takes more than ${this.#limits.megabytes} MB of memory`);
      worker.on("error", ended);
      worker.on("exit", ended);
      return worker;
    } catch (error) {
      const why = (error as Error).message;
      throw new DataError(`Chat templates are rendered by the package ${name}, which cannot be had: ${why}`);
    }
  }

  #end(failed: string): void {
    const worker = this.#worker;
    this.#worker = undefined; // before `exit` comes
    void worker?.terminate();
    this.#answer?.({ failed });
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#end("was disposed while it was rendered");
  }
}
