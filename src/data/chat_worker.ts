/**
 * Renders chat templates in a worker. A template is an untrusted program: an endless loop in it would block the calling
 * thread. The Jinja interpreter is the npm package `@huggingface/jinja`, which is downloaded when a template is first
 * rendered.
 *
 * A template can use data and three functions, and the interpreter cannot evaluate JavaScript. The length of the
 * rendered text, the worker's heap and its time are limited.
 */
import { DataError } from "../errors.ts";
import { BoundedWorker, type Serve } from "./bounded_worker.ts";

/** Limits on rendering a template. */
export interface TemplateLimits {
  /** Time limit of one call, in seconds. Default: 10. */
  readonly seconds?: number;
  /** Largest heap of the worker, in MB. Default: 256. */
  readonly megabytes?: number;
  /** Longest rendered text, in characters. Default: 4,194,304. */
  readonly characters?: number;
}

/** One rendering of a chat. */
export interface Rendering {
  /** How many messages are rendered, beginning with the first. */
  readonly count: number;
  /** The template's `add_generation_prompt`. */
  readonly prompt: boolean;
  /** Texts that are inserted where the assistant's text begins and where it ends. */
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

interface Jinja {
  readonly Template: new (source: string) => { readonly parsed: unknown };
  readonly Environment: new () => { set(name: string, value: unknown): void };
  readonly Interpreter: new (environment: unknown) => { run(program: unknown): { readonly value: string } };
}
/**
 * The worker's code. It is sent to the worker as source text, so it must not use anything defined outside this
 * function.
 */
const serve: Serve<Request, string[]> = ({ Template, Environment, Interpreter }: Jinja) => {
  const MONTHS = "January February March April May June July August September October November December".split(" ");
  const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

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
      if (parts[letter] === undefined) throw new Error(`strftime_now does not support ${all}`);
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

  return render;
};

/** Renders templates, one after the other. */
export class TemplateWorker implements Disposable {
  readonly #seconds: number;
  readonly #characters: number;
  readonly #worker: BoundedWorker<Request, string[]>;

  constructor({ seconds = 10, megabytes = 256, characters = 2 ** 22 }: TemplateLimits = {}) {
    this.#seconds = seconds;
    this.#characters = characters;
    this.#worker = new BoundedWorker("@huggingface/jinja", serve, { megabytes });
  }

  /**
   * Renders a template several times.
   *
   * @returns one text for each element of `renderings`
   * @throws {DataError} when the template fails, rejects the messages or exceeds a limit, or the package cannot be
   * loaded
   */
  async render(
    { name, now = new Date(), ...request }: Omit<Request, "characters" | "now"> & { name: string; now?: Date },
  ): Promise<string[]> {
    const whole = { ...request, characters: this.#characters, now: now.getTime() };
    try {
      return await this.#worker.ask(whole, { seconds: this.#seconds });
    } catch (error) {
      throw error instanceof DataError ? error : new DataError(`${name} ${(error as Error).message}`);
    }
  }

  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#worker[Symbol.dispose]();
  }
}
