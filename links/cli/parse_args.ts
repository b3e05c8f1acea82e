/**
 * A stand-in for `jsr:@std/cli/parse-args` where JSR cannot be reached: `parseArgs` with the options that this repository
 * uses, the same types and behaviour. What it leaves out (single-letter groups, negation, defaults, lists, dotted names)
 * throws rather than parse differently.
 *
 * @module
 */

/** The options of {@linkcode parseArgs}. */
export interface ParseOptions {
  /** Flags that take a value and keep it as text. */
  string?: readonly string[];
  /** Flags that are true where given, and false elsewhere. */
  boolean?: readonly string[];
  /** Other names of a flag; the result has the value under each of them. */
  alias?: Record<string, string>;
  /** Called with every argument that is no declared flag; what it returns `false` for is left out of the result. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Flags by name, and under `_` the arguments that are none. */
export type Args = Record<string, unknown> & { _: (string | number)[] };

/** Parses `--name=value`, `--name value` and `--name`; of a flag given twice the last one counts. */
export function parseArgs(args: string[], options: ParseOptions = {}): Args {
  const { string = [], boolean = [], alias = {}, unknown = () => true } = options;
  const names = new Map(Object.entries(alias).flatMap(([a, b]) => [[a, [a, b]], [b, [a, b]]]));
  const declared = (kind: readonly string[], key: string) =>
    (names.get(key) ?? [key]).some((name) => kind.includes(name));
  const result: Args = { _: [] };
  const set = (key: string, value: unknown) => (names.get(key) ?? [key]).forEach((name) => result[name] = value);
  for (const name of boolean) set(name, false);

  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === "--") {
      result._.push(...args.slice(i + 1));
      break;
    }
    const [, key, value] = /^--?([^=]+)(?:=(.+))?$/s.exec(arg) ?? [];
    if (!key || arg === "-") {
      if (unknown(arg) !== false) result._.push(string.includes("_") ? arg : numberOr(arg));
    } else if (!arg.startsWith("--") && arg.length > 2) {
      throw new Error(`parseArgs: ${arg}: single-letter groups are not part of this stand-in`);
    } else if (declared(string, key)) {
      const next = args[i + 1];
      if (value === undefined && next !== undefined && !next.startsWith("-")) set(key, args[++i]);
      else set(key, value ?? "");
    } else if (declared(boolean, key)) {
      set(key, value !== "false");
    } else if (unknown(arg, key, value) !== false) {
      set(key, value === undefined ? true : numberOr(value));
    }
  }
  return result;
}

function numberOr(text: string): string | number {
  return /^(0x[0-9a-f]+|[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?)$/i.test(text) ? Number(text) : text;
}
