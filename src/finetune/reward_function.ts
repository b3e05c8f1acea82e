/**
 * Runs a function from a file in a process of its own without permissions: it cannot access files, the network or the
 * environment.
 *
 * A worker would not be enough. Deno cannot end a worker in an endless loop. Only web workers can run without
 * permissions, and if their heap fills up, Deno ends the whole process.
 */
import { ConfigError, TrainingError } from "../errors.ts";
import { Turns } from "../files/files.ts";
import { reason } from "../files/reason.ts";
import { builtin } from "../files/system.ts";
import { afterPrompt, checkedWeight, type Reward, type RewardOptions, type Sample } from "./rewards.ts";

/** A line from the process. The first one says whether the function was loaded. */
interface Reply {
  /** The score of a sample. */ readonly score?: number;
  /** The reason why there is no score, or no function. */ readonly failed?: string;
}

interface Running {
  readonly process: Deno.ChildProcess;
  readonly requests: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly replies: ReadableStreamDefaultReader<string>;
}

/**
 * The program of the process. It imports the function's file by a literal name, because such an import needs no
 * permission. Afterwards it gives up the permission to import from well-known hosts, which every process has.
 */
const sourceOf = (url: string, seconds: number) =>
  `const reply = (what) => Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(what) + "\\n"));
for (const name of ["log", "info", "debug"]) console[name] = console.error; // replies go to the standard output
Deno.addSignalListener("SIGINT", () => {}); // the parent decides what Ctrl-C does
const { default: score } = await import(${JSON.stringify(url)}).catch((error) => {
  const where = String(error?.message ?? error).replace(/\\n.*(?=\\n)/s, ""); // without the lines of the source
  reply({ failed: where.replace(/\\s+/g, " ") });
  Deno.exit();
});
await Deno.permissions.revoke({ name: "import" });
reply(typeof score === "function" ? {} : { failed: "its default export is not a function" });
const call = new (process.getBuiltinModule("node:vm").Script)("call()");
const answer = async (sample) => {
  sample.ids = Int32Array.from(sample.ids);
  globalThis.call = () => score(sample.prompt, sample.completion, sample);
  try {
    // The parent ends a call that takes too long. The timeout is for a call that outlives its parent.
    const given = await call.runInThisContext({ timeout: ${Math.min(2 ** 31, Math.ceil(OUTLIVES * 1000 * seconds))} });
    if (Number.isFinite(given)) reply({ score: given });
    else reply({ failed: "gives " + (typeof given === "string" ? JSON.stringify(given) : given) + ", expected a finite number" });
  } catch (error) {
    const message = String(error?.message ?? error).replace(/, run again with .*|\\n.*/s, "");
    reply({ failed: (error?.name === "NotCapable" ? "tried something that it has no permission for: " : "has failed: ") + message });
  }
};
let line = "";
for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  line += text;
  if (!line.endsWith("\\n")) continue;
  answer(JSON.parse(line)); // not awaited, so that the input's end ends the process even if the function never returns
  line = "";
}
Deno.exit();`;

/** The time limit for loading the function is at least this long, in seconds: its imports may have to be downloaded. */
const LOADING = 30;

/** The largest heap of the process, in MB. */
const MEGABYTES = 1024;

/** A call that outlives its parent is ended after this many times its time limit. */
const OUTLIVES = 10;

/** The longest reply, in characters. */
const LONGEST = 2 ** 16;

/** A time limit is measured in this many ticks of a timer. */
const TICKS = 20;

/**
 * A reward function from a file. The file is a module whose default export takes the prompt, the completion and the
 * whole {@linkcode Sample}, and returns a number or a promise of a number:
 *
 * ```ts ignore
 * import words from "./words.json" with { type: "json" };
 * export default (prompt: string, completion: string): number => words.filter((word) => completion.includes(word)).length;
 * ```
 *
 * The function runs in a process of its own without permissions: it cannot access files, the network or the
 * environment, and its heap is limited to 1 GB. Modules that it imports, and JSON or text imported with an import
 * attribute, are loaded before it runs. A call that takes too long fails and ends the process; the next call starts a
 * new one. What the function logs is printed on the standard error.
 *
 * This works only in Deno, with the permission `--allow-run=deno`.
 *
 * @example
 * ```ts ignore
 * using reward = await RewardFunction.open("reward.ts", { weight: 0.5 });
 * console.log(await reward.score([{ prompt: "2 + 2 =", completion: " 4", ids: new Int32Array(6), from: 5, ended: true }]));
 * ```
 */
export class RewardFunction implements Reward {
  readonly #turns = new Turns();
  #running: Running | undefined;

  private constructor(
    /** The module's path. */ readonly path: string,
    readonly name: string,
    readonly weight: number,
    /** Time limit of one call. */ readonly seconds: number,
  ) {}

  /**
   * Loads a reward function.
   *
   * @param path the module's path
   * @param options.seconds time limit of one call; default: 30. Loading may take this long too, and at least 30 seconds
   * @throws {ConfigError} when the file does not exist, cannot be loaded, or does not export a function
   */
  static async open(
    path: string,
    { name = fileName(path), weight = 1, seconds = 30 }: RewardOptions & { readonly seconds?: number } = {},
  ): Promise<RewardFunction> {
    const reward = new RewardFunction(path, name, checkedWeight(name, weight), seconds);
    await reward.#start();
    return reward;
  }

  /**
   * Calls the function for each sample, one after the other.
   *
   * @throws {TrainingError} naming the prompt, when the function fails, does not return a finite number, or takes too
   *   long or too much memory, in which case the process is ended
   * @throws the reason of `signal` when it aborts
   */
  score(samples: readonly Sample[], { signal }: { signal?: AbortSignal } = {}): Promise<Float64Array> {
    return this.#turns.take(async () => {
      const scores = new Float64Array(samples.length);
      for (const [i, sample] of samples.entries()) {
        signal?.throwIfAborted();
        await this.#start(signal);
        const line = JSON.stringify({ ...sample, ids: Array.from(sample.ids) });
        const { score, failed } = await this.#ask(line, { seconds: this.seconds, what: "for one completion", signal });
        scores[i] = score ?? NaN;
        if (Number.isFinite(scores[i])) continue;
        throw new TrainingError(`The reward function ${this.path} ${failed}, ${afterPrompt(sample)}`);
      }
      return scores;
    });
  }

  async #start(signal?: AbortSignal): Promise<void> {
    if (this.#running) return;
    if (!("Deno" in globalThis)) {
      throw new ConfigError("Reward functions from files run only in Deno; elsewhere, pass a function to plainReward");
    }
    const unusable = (why: string) => new ConfigError(`${this.path} cannot be used as a reward function: ${why}`);
    const { pathToFileURL } = builtin<{ pathToFileURL(path: string): URL }>("node:url");
    const source = `data:text/javascript,${encodeURIComponent(sourceOf(pathToFileURL(this.path).href, this.seconds))}`;
    let process: Deno.ChildProcess;
    try {
      process = new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-prompt", source],
        env: { NO_COLOR: "1", DENO_V8_FLAGS: `--max-old-space-size=${MEGABYTES}` },
        ...{ stdin: "piped", stdout: "piped", stderr: "inherit" },
      }).spawn();
    } catch (error) {
      throw unusable(`its process does not start: ${reason(error)}`);
    }
    const requests = process.stdin.getWriter(),
      replies = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
    process.unref();
    const running = this.#running = { process, requests, replies };
    void process.status.then(() => this.#running === running && (this.#running = undefined));
    const { failed } = await this.#ask("", { seconds: Math.max(LOADING, this.seconds), what: "to load", signal });
    if (failed === undefined) return;
    this[Symbol.dispose]();
    throw unusable(failed);
  }

  /** Sends a line, or nothing if it is empty, and waits for a reply. If none comes, the process is ended. */
  async #ask(
    line: string,
    { seconds, what, signal }: { readonly seconds: number; readonly what: string; readonly signal?: AbortSignal },
  ): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>(), abort = () => reject(signal!.reason);
    // Counts ticks instead of reading the clock: while the process is suspended (Ctrl-Z), there are no ticks, so a call
    // does not time out when the process continues.
    let ticks = 0;
    const timer = setInterval(() => {
      if (++ticks === TICKS) reject(new Error(`takes more than ${seconds} seconds ${what}`));
    }, 1000 * seconds / TICKS);
    signal?.addEventListener("abort", abort);
    exchange(this.#running!, line).then(resolve, reject);
    try {
      return await promise;
    } catch (error) {
      this[Symbol.dispose]();
      signal?.throwIfAborted();
      return { failed: (error as Error).message };
    } finally {
      clearInterval(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Ends the process. */
  [Symbol.dispose](): void {
    const running = this.#running;
    this.#running = undefined;
    try {
      running?.process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
  }
}

/** Sends a line, or nothing if it is empty, and reads a reply. @throws {Error} when the process ends or does not reply */
async function exchange({ process, requests, replies }: Running, line: string): Promise<Reply> {
  if (line) requests.write(new TextEncoder().encode(`${line}\n`)).catch(() => {}); // if the process has ended, reading tells why
  let text = "";
  while (!text.endsWith("\n")) {
    const { value, done } = await replies.read();
    if (done) {
      const { code, signal } = await process.status;
      throw new Error(
        `has ended its process with ${signal ?? `code ${code}`} (its heap is limited to ${MEGABYTES} MB)`,
      );
    }
    text += value;
    if (text.length > LONGEST) break;
  }
  try {
    return { ...JSON.parse(text) };
  } catch {
    throw new Error("has written to the standard output, which is reserved for scores");
  }
}

const fileName = (path: string): string => path.replace(/.*[/\\]/, "").replace(/\.\w+$/, "");
