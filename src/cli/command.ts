/** Makes commands from their declarations: parsing of flags, `--help`, interruption and exit statuses. */
import { ConfigError } from "../errors.ts";
import { checkValues, describeFlags, fallbacks, type FlagTable, parseCommandLine, type Values } from "./flags.ts";
import { INTERRUPTED, onInterrupt } from "./interrupt.ts";
import { print, Progress } from "./progress.ts";

/** A command's name, flags and help texts. */
export interface Declaration<T extends FlagTable> {
  /** The name of its task in deno.json. */
  readonly name: string;
  readonly flags: T;
  /** The words that a command line has besides flags: at most one config file, or the words that `takes` describes. */
  readonly words?: "config" | { readonly takes: string; readonly example: readonly string[] };
  /** What the command does, what follows its name in the usage line, and paragraphs before the list of flags. */
  readonly help: { readonly does: string; readonly usage: string; readonly notes?: string };
  /** Whether the command can be resumed: if its output is lost, it saves and stops as after Ctrl-C. */
  readonly resumable?: boolean;
  /**
   * The command's own defaults, which replace the flags' defaults. `config` has the config file's values, if there is
   * one.
   */
  defaults?(given: Partial<Values<T>>, config?: Partial<Values<T>>): Partial<Values<T>>;
  /** @throws {ConfigError} if values that are valid by themselves contradict each other */
  check?(values: Values<T>): void;
}

/** A parsed command line: the help text, or the values to run with. */
export interface Request<T extends FlagTable> {
  readonly help?: string;
  readonly values: Values<T>;
  /** The values that the config file sets (`config`), and the values that the flags set (`given`). */
  readonly config: Partial<Values<T>>;
  readonly given: Partial<Values<T>>;
  readonly words: readonly string[];
}

/** A request that is being carried out. */
export interface Running<T extends FlagTable> extends Request<T> {
  /** The command line. */
  readonly args: string[];
  /** Prints lines and the progress bar; {@linkcode command} removes the bar at the end. */
  readonly progress: Progress;
  /**
   * From this call on, Ctrl-C, SIGTERM and a closed terminal call `notify` and abort the signal; the exit status is
   * then 130.
   */
  interruption(notify: () => void): AbortSignal;
}

/** Parses a command line. @throws {ConfigError} for a flag, a value or a word that the command does not take */
export async function parse<T extends FlagTable>(declaration: Declaration<T>, args: string[]): Promise<Request<T>> {
  const { flags, words: takes, help: { does, usage, notes = "" }, name } = declaration;
  const { given, words, help } = parseCommandLine(flags, args);
  if (takes === "config" ? words.length > 1 : !takes && !help && words.length > 0) {
    const one = takes ? "only one config file can be named, and " : "";
    throw new ConfigError(`${words[takes ? 1 : 0]}: ${one}flags are written --name=value`);
  }
  if (typeof takes === "object" && !help && words.length !== takes.example.length) {
    throw new ConfigError(`${name} takes ${takes.takes}: ${taskCommand(name, takes.example)}`);
  }
  // Imported only if a config file is named, since most command lines name none.
  const config = takes === "config" && words.length === 1
    ? checkValues(flags, await (await import("./config_file.ts")).loadConfig(words[0]), words[0])
    : undefined;
  const values = { ...fallbacks(flags), ...declaration.defaults?.(given, config), ...config, ...given };
  if (!help) declaration.check?.(values); // --help works without the required flags
  const request = { values, config: config ?? {}, given, words };
  if (!help) return request;
  const shown = `${does}

  ${taskCommand(name, [])} ${usage} [--flag=value …]

${notes}Flags, with their default values:

${describeFlags(flags, values)}`;
  return { ...request, help: shown };
}

/**
 * Makes a command: a function that takes the command line and returns the exit status.
 *
 * @param declaration.output where `progress` prints; default: standard output
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
 * Changes to the folder in which the user called `deno task`, which INIT_CWD names: `deno task` itself changes to the
 * folder of deno.json. Relative paths then mean what the user expects, and printed commands can be copied as they are.
 */
function enterCallersFolder(): void {
  const folder = environment("INIT_CWD");
  if (folder && folder !== Deno.cwd()) Deno.chdir(folder);
}

/** An environment variable; undefined if the process has no permission to read it. */
function environment(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}

/**
 * Classes of errors that bugs throw. Errors of every other class are thrown on purpose, with a message for the user.
 */
const { CompileError, LinkError, RuntimeError } = WebAssembly;
const unforeseen = [Error, RangeError, ReferenceError, SyntaxError, TypeError, CompileError, LinkError, RuntimeError];

/**
 * The exit status that a shell reports for a program ended by SIGPIPE, such as `cat` when its reader closes the pipe.
 */
const BROKEN_PIPE = 128 + 13;

/** Runs a command with the process's arguments and exits with the status that the command returns. */
export async function runCommand(command: (args: string[]) => Promise<number>): Promise<never> {
  try {
    Deno.exit(await command(Deno.args));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(BROKEN_PIPE);
    try {
      if (environment("NANOGPT_DEBUG")) console.error(error);
      else console.error(`error: ${describeError(error)}`);
    } catch {
      // Standard error is closed as well; the exit status still reports the failure.
    }
    Deno.exit(exitStatus(error));
  }
}

/** 2 if the command line was not valid, 1 if the command failed. */
export function exitStatus(error: unknown): number {
  return error instanceof ConfigError ? 2 : 1;
}

/** An error as at most two lines. Errors that bugs throw get their class's name and how to print the stack trace. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!unforeseen.some((kind) => error.constructor === kind)) return error.message.split("\n").slice(0, 2).join("\n");
  const [line] = error.message.split("\n");
  return `${error.name}: ${line}\nSet NANOGPT_DEBUG=1 in the environment to print the stack trace.`;
}

/** The additional permission and flag of some tasks, and of variants of tasks, such as `train:dawn`. */
const VARIANTS: Readonly<Record<string, readonly [permission: string, flag: string]>> = {
  serve: ["--allow-sys", ""],
  finetune: ["--allow-run=deno", ""], // for reward functions
  dawn: ["--allow-ffi", "--device=webgpu:dawn"],
  native: ["--allow-ffi", "--native"],
  lan: ["", "--host=0.0.0.0"],
};

/**
 * The shell command that runs a task in the way in which the user runs this process: with `deno`, or with npx if npx
 * installed Deno. If the package came from a registry, there are no tasks, and the command is `deno run` with the
 * package's export.
 *
 * @param options.deno path of the running Deno
 * @param options.module URL of this module
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
