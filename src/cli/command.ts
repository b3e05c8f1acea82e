/** What every command does alike: it is declared once; parsing, `--help`, interruption and exit statuses are made of that. */
import { ConfigError } from "../errors.ts";
import { checkValues, describeFlags, fallbacks, type FlagTable, parseCommandLine, type Values } from "./flags.ts";
import { INTERRUPTED, onInterrupt } from "./interrupt.ts";
import { print, Progress } from "./progress.ts";

/** A command as its user sees it. */
export interface Declaration<T extends FlagTable> {
  /** Of the task. */
  readonly name: string;
  readonly flags: T;
  /** What a command line has besides flags: one config file at most, or names; nothing unless given. */
  readonly words?: "config" | { readonly takes: string; readonly example: readonly string[] };
  /** What it does; what follows the name in an example; what there is to say before the flags. */
  readonly help: { readonly does: string; readonly usage: string; readonly notes?: string };
  /** Whether what it has done so far can be gone on with: when its output is lost, it saves as after Ctrl-C. */
  readonly resumable?: boolean;
  /** What holds instead of the flags' own values, unless a config file or a flag says otherwise; `config` where one is named. */
  defaults?(given: Partial<Values<T>>, config?: Partial<Values<T>>): Partial<Values<T>>;
  /** @throws {ConfigError} where values that are right alone contradict each other */
  check?(values: Values<T>): void;
}

/** What the user asked for: the help, or a run with these values. */
export interface Request<T extends FlagTable> {
  readonly help?: string;
  readonly values: Values<T>;
  /** The parts of `values` that the config file and the flags name. */
  readonly config: Partial<Values<T>>;
  readonly given: Partial<Values<T>>;
  readonly words: readonly string[];
}

/** A request while it is carried out. */
export interface Running<T extends FlagTable> extends Request<T> {
  /** The command line. */
  readonly args: string[];
  /** For what is printed; {@linkcode command} takes its bar away at the end. */
  readonly progress: Progress;
  /** From here on Ctrl-C, SIGTERM and a closed terminal call `notify` and abort the signal; the exit status is 130 then. */
  interruption(notify: () => void): AbortSignal;
}

/** @throws {ConfigError} for what the command does not take */
export async function parse<T extends FlagTable>(declaration: Declaration<T>, args: string[]): Promise<Request<T>> {
  const { flags, words: takes, help: { does, usage, notes = "" }, name } = declaration;
  const { given, words, help } = parseCommandLine(flags, args);
  if (takes === "config" ? words.length > 1 : !takes && !help && words.length > 0) {
    const one = takes ? "one config file is enough, and " : "";
    throw new ConfigError(`${words[takes ? 1 : 0]}: ${one}flags are written --name=value`);
  }
  if (typeof takes === "object" && !help && words.length !== takes.example.length) {
    throw new ConfigError(`${name} takes ${takes.takes}: ${taskCommand(name, takes.example)}`);
  }
  // Loaded only where there is a file: most command lines name none.
  const config = takes === "config" && words.length === 1
    ? checkValues(flags, await (await import("./config_file.ts")).loadConfig(words[0]), words[0])
    : undefined;
  const values = { ...fallbacks(flags), ...declaration.defaults?.(given, config), ...config, ...given };
  if (!help) declaration.check?.(values); // what is missing is what the help is asked for
  const request = { values, config: config ?? {}, given, words };
  if (!help) return request;
  const shown = `${does}

  ${taskCommand(name, [])} ${usage} [--flag=value …]

${notes}Flags, with the values that hold where they are not given:

${describeFlags(flags, values)}`;
  return { ...request, help: shown };
}

/**
 * A command as a function of its command line, which returns the exit status.
 *
 * @param declaration.output where `progress` prints: standard output, unless that is for something else
 */
export function command<T extends FlagTable>(
  declaration: Declaration<T> & { output?: Progress["output"]; run(running: Running<T>): Promise<void> },
): (args: string[]) => Promise<number> {
  return async (args) => {
    enterCallersFolder();
    const request = await parse(declaration, args);
    if (request.help) {
      print(request.help);
      return 0;
    }
    const progress = new Progress(declaration.output);
    let signal: AbortSignal | undefined;
    const interruption = (notify: () => void) =>
      signal = onInterrupt(notify, declaration.resumable ? progress : undefined);
    try {
      await declaration.run({ ...request, args, progress, interruption });
    } catch (error) {
      if (!signal?.aborted || error !== signal.reason) throw error;
    } finally {
      progress.end();
    }
    return signal?.aborted ? INTERRUPTED : 0;
  };
}

/**
 * `deno task` changes to the folder of deno.json, and INIT_CWD tells where it was called: there, so that relative paths mean
 * what they mean to every other program, and the commands that are printed can be typed as they are.
 */
function enterCallersFolder(): void {
  const folder = environment("INIT_CWD");
  if (folder && folder !== Deno.cwd()) Deno.chdir(folder);
}

/** A variable of the environment, where it may be read. */
function environment(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}

/** What a mistake in a program throws; every other class was thrown on purpose, with a message for the user. */
const { CompileError, LinkError, RuntimeError } = WebAssembly;
const unforeseen = [Error, RangeError, ReferenceError, SyntaxError, TypeError, CompileError, LinkError, RuntimeError];

/** What a shell sees of a program that SIGPIPE ends, as it ends `cat`, when whoever reads the output has seen enough. */
const BROKEN_PIPE = 128 + 13;

/** Runs a command with the process's arguments, and ends the process with the status that it returns. */
export async function runCommand(command: (args: string[]) => Promise<number>): Promise<never> {
  try {
    Deno.exit(await command(Deno.args));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(BROKEN_PIPE);
    try {
      if (environment("NANOGPT_DEBUG")) console.error(error);
      else console.error(`error: ${describeError(error)}`);
    } catch {
      // Standard error is gone, too; the status still says that it failed.
    }
    Deno.exit(exitStatus(error));
  }
}

/** 2 where the command was not understood, 1 where it failed. */
export function exitStatus(error: unknown): number {
  return error instanceof ConfigError ? 2 : 1;
}

/** At most two lines; an error that nobody foresaw keeps its class's name, and says how to see where it came from. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!unforeseen.some((kind) => error.constructor === kind)) return error.message.split("\n").slice(0, 2).join("\n");
  const [line] = error.message.split("\n");
  return `${error.name}: ${line}\nWith NANOGPT_DEBUG=1 in the environment the whole trace is shown.`;
}

/** What a task, or its variant, has besides what all have: a permission, and a flag. */
const VARIANTS: Readonly<Record<string, readonly [permission: string, flag: string]>> = {
  serve: ["--allow-sys", ""],
  dawn: ["--allow-ffi", "--device=webgpu:dawn"],
  native: ["--allow-ffi", "--native"],
  lan: ["", "--host=0.0.0.0"],
};

/**
 * What to type into a shell to run a task, as the user ran this one: with `deno`, or with npx where that has brought it; and
 * where the package came from a registry, so that there are no tasks, the command that it exports.
 *
 * @param deno path of the running Deno
 * @param module URL of this module
 */
export function taskCommand(
  name: string,
  args: readonly string[],
  { deno = Deno.execPath(), module = import.meta.url } = {},
): string {
  const quote = (arg: string) => /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", `'\\''`)}'`;
  const program = /[\\/]_npx[\\/]/.test(deno) ? `npx -y deno@${Deno.version.deno}` : "deno";
  if (module.startsWith("file:")) return [program, "task", name, ...args.map(quote)].join(" ");
  const parts = name.split(":"), added = parts.map((part) => VARIANTS[part] ?? ["", ""]);
  const permissions = ["--allow-read", "--allow-write", "--allow-net", "--allow-env", ...added.map(([first]) => first)];
  const flags = added.map(([, flag]) => flag).filter((flag) => !args.includes(flag));
  const words = [...permissions, `jsr:@nanogpt/ts/cli/${parts[0]}`, ...flags, ...args.map(quote)].filter(Boolean);
  return [program, "run", ...words].join(" ");
}
