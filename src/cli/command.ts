/** What every command does alike: errors become a line or two and an exit status, never a stack trace. */
import { ConfigError } from "../errors.ts";

/** What a mistake in a program throws; every other class was thrown on purpose, with a message for the user. */
const unforeseen = [
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
  WebAssembly.CompileError,
  WebAssembly.LinkError,
  WebAssembly.RuntimeError,
];

/** Runs a command with the process's arguments, and ends the process with the status that it returns. */
export async function runCommand(command: (args: string[]) => Promise<number>): Promise<never> {
  try {
    Deno.exit(await command(Deno.args));
  } catch (error) {
    // Whoever reads our output has seen enough, as `head` does.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0);
    if (Deno.env.get("NANOGPT_DEBUG")) console.error(error);
    else console.error(`error: ${describeError(error)}`);
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
  return `${error.name}: ${
    error.message.split("\n")[0]
  }\nWith NANOGPT_DEBUG=1 in the environment the whole trace is shown.`;
}

/**
 * What to type into a shell to run a task, as the user ran this one: with `deno`, or with npx where that has brought it.
 *
 * @param deno path of the running Deno
 */
export function taskCommand(name: string, args: string[], deno = Deno.execPath()): string {
  const quote = (arg: string) => /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", `'\\''`)}'`;
  const task = /[\\/]_npx[\\/]/.test(deno) ? `npx -y deno@${Deno.version.deno} task` : "deno task";
  return [task, name, ...args.map(quote)].join(" ");
}
