/**
 * Flags in the form of nanoGPT's configurator: `--name=value`, with booleans written as in Python. If a flag is given
 * twice, the last value counts.
 *
 * A command declares its flags in a table. Parsing, checks, messages, `--help` and the type of the result are made from
 * the table. Values of a config file pass the same checks. Not supported: `--name value`, which nanoGPT does not take
 * either, and Python expressions as values.
 */
import { ConfigError, nearest } from "../errors.ts";
import type { NumberRange } from "../../kernels/choose/rules.ts";

/** One flag: its default, its help text, and the values that it takes. */
export interface Flag<V extends FlagValue> {
  /** The value if the flag is not given. */
  readonly fallback: V;
  readonly help: string;
  /** Whether `--name=` is valid and means the empty text. */
  readonly mayBeEmpty?: boolean;
  /** Whether the flag may be repeated. Its value is then a list, or a text in which commas separate the values. */
  readonly many?: boolean;
  /** Whether the name alone means True. */
  readonly bare?: boolean;
  /** The valid values, in words. Messages print it after "expected". */
  readonly expected: string;
  /** Turns the text of a flag into a value for `accepts` to check; undefined if the text is not a valid value. */
  read(text: string): FlagValue | undefined;
  accepts(value: unknown): boolean;
  /** The reason to print for a value that is not valid; undefined prints "expected" and the valid values. */
  refusal?(value: unknown): string | undefined;
}

export type FlagValue = number | boolean | string | readonly string[];
// deno-lint-ignore no-explicit-any
export type FlagTable = Readonly<Record<string, Flag<any>>>;
/** The values of a table's flags. */
export type Values<T extends FlagTable> = { -readonly [K in keyof T]: T[K] extends Flag<infer V> ? V : never };

interface Range extends NumberRange {
  /** Like `max`, but the bound itself is not valid. */
  readonly below?: number;
}

/** The bounds of a range, in the order in which messages name them. */
const BOUNDS = {
  above: { words: "above", holds: (n: number, bound: number) => n > bound },
  min: { words: "at least", holds: (n: number, bound: number) => n >= bound },
  max: { words: "at most", holds: (n: number, bound: number) => n <= bound },
  below: { words: "below", holds: (n: number, bound: number) => n < bound },
};

const numeric =
  (what: string, form: RegExp, isOne: (value: unknown) => boolean) =>
  (fallback: number, help: string, range: Range = {}): Flag<number> => {
    const bounds = (Object.keys(BOUNDS) as (keyof typeof BOUNDS)[]).filter((name) => range[name] !== undefined);
    const words = bounds.map((name) => `${BOUNDS[name].words} ${range[name]}`).join(" and ");
    return {
      fallback,
      help,
      expected: words ? `${what}, ${words}` : what,
      read: (text) => form.test(text) ? Number(text) : undefined,
      accepts: (value) => isOne(value) && bounds.every((name) => BOUNDS[name].holds(value as number, range[name]!)),
    };
  };

export const int = numeric("an integer", /^[-+]?\d+$/, Number.isSafeInteger);
export const float = numeric("a number", /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i, Number.isFinite);

export function bool(fallback: boolean, help: string): Flag<boolean> {
  return {
    fallback,
    help,
    expected: "True or False",
    read: (text) => ({ True: true, true: true, False: false, false: false })[text],
    accepts: (value) => typeof value === "boolean",
  };
}

/** A flag that is off by default. `--name` turns it on, and so does `--name=True`, nanoGPT's form. */
export function toggle(help: string): Flag<boolean> {
  return { ...bool(false, help), bare: true };
}

export function text(fallback: string, help: string): Flag<string> {
  return {
    fallback,
    help,
    expected: "a text",
    read: (text) => text,
    accepts: (value) => typeof value === "string",
  };
}

/** A text flag that may be repeated: its value is the list of all texts, in the given order. */
export function texts(help: string): Flag<readonly string[]> {
  return {
    fallback: [],
    many: true,
    help,
    expected: "texts",
    read: (text) => [text],
    accepts: (value) => Array.isArray(value) && value.every((text) => typeof text === "string"),
  };
}

/**
 * A flag whose value is one of `choices`; the first is the default.
 *
 * @param refused gives the reason to print for a value that is not valid; undefined prints the choices
 */
export function choice<const V extends FlagValue>(
  choices: readonly V[],
  help: string,
  refused: (value: string) => string | undefined = () => undefined,
): Flag<V> {
  return {
    fallback: choices[0],
    help,
    expected: choices.map(show).join(" or "),
    read: (text) => choices.find((choice) => show(choice) === text || String(choice) === text) ?? text,
    accepts: (value) => (choices as readonly unknown[]).includes(value),
    refusal: (value) => refused(String(value)),
  };
}

/** A parsed command line: the given flags, the words that are not flags, and whether `--help` was given. */
export interface CommandLine<T extends FlagTable> {
  given: Partial<Values<T>>;
  words: string[];
  help: boolean;
}

/**
 * Parses a command line by a table of flags.
 *
 * @throws {ConfigError} for an unknown flag, a value that the flag does not take, and forms other than `--name=value`
 */
export function parseCommandLine<T extends FlagTable>(table: T, args: string[]): CommandLine<T> {
  args = args.map((arg) => table[arg.replace(/^--/, "")]?.bare ? `${arg}=True` : arg);
  for (const arg of args) checkForm(table, arg);
  const given: Partial<Record<string, FlagValue>> = {};
  for (const [name, flag] of Object.entries(table)) {
    const texts = args.filter((arg) => arg.startsWith(`--${name}=`)).map((arg) => arg.slice(name.length + 3));
    const last = texts.at(-1);
    if (last === undefined) continue;
    given[name] = flag.many
      ? (typeof flag.fallback === "string" ? texts.join(",") : texts)
      : check(table, name, flag.read(last), `--${name}=${last}`);
  }
  const words = args.filter((arg) => !arg.startsWith("-"));
  return { given: given as Partial<Values<T>>, words, help: args.includes("--help") || args.includes("-h") };
}

/**
 * Checks the values of a config file like flags.
 *
 * @throws {ConfigError} for an unknown name or a value that is not valid
 */
export function checkValues<T extends FlagTable>(table: T, values: object, origin: string): Partial<Values<T>> {
  for (const [name, value] of Object.entries(values)) {
    if (!Object.hasOwn(table, name)) throw unknown(table, name, `${origin}: no flag is called ${name}`);
    const shown = typeof value === "string" ? JSON.stringify(value) : show(value);
    check(table, name, value, `${origin}: ${name} = ${shown}`);
  }
  return values;
}

/** The default of every flag. */
export function fallbacks<T extends FlagTable>(table: T): Values<T> {
  return Object.fromEntries(Object.entries(table).map(([name, flag]) => [name, flag.fallback])) as Values<T>;
}

/** The list of flags in `--help`: one line for each flag, with its help text and its value in `values`. */
export function describeFlags<T extends FlagTable>(table: T, values: Values<T>): string {
  const lines = Object.entries(table).map(([name, flag]) => [`  --${name}=${show(values[name])}`, flag.help]);
  const width = Math.max(...lines.map(([left]) => left.length)) + 2;
  return lines.map(([left, right]) => left.padEnd(width) + right).join("\n");
}

function checkForm(table: FlagTable, arg: string): void {
  if (!arg.startsWith("-") || arg === "--help" || arg === "-h") return;
  const [, name, value] = /^--?([^=]*)(?:=(.*))?$/s.exec(arg)!;
  if (!arg.startsWith("--") || !Object.hasOwn(table, name)) {
    throw unknown(table, name, `Unknown flag ${arg.split("=")[0]}`);
  }
  if (value || value === "" && table[name].mayBeEmpty) return;
  const example = typeof table[name].fallback === "boolean" ? "True" : "VALUE";
  throw new ConfigError(`--${name} has no value: write --${name}=${example} without spaces, or leave the flag out`);
}

function check(table: FlagTable, name: string, value: unknown, shown: string): FlagValue {
  const flag = table[name];
  if (flag.accepts(value)) return value as FlagValue;
  const reason = value === undefined ? undefined : flag.refusal?.(value);
  throw new ConfigError(`${shown}: ${reason ?? `expected ${flag.expected}`}`);
}

function unknown(table: FlagTable, name: string, what: string): ConfigError {
  const found = nearest(name, Object.keys(table));
  const hint = found && `the nearest flag is --${found}, and --help lists all flags`;
  return new ConfigError(`${what}: ${hint ?? "--help lists all flags"}`);
}

/** A value as a user would type it. */
export function show(value: unknown): string {
  if (Array.isArray(value)) return value.map(show).join(" ");
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "string" || !value.includes("\n")) return String(value);
  return `$'${value.replace(/[\\']/g, "\\$&").replaceAll("\n", "\\n")}'`; // the quoting of bash, zsh and ksh
}

/** The flag for an option of the library: `topK` becomes `top_k`. */
export type Snake<Name extends string> = Name extends `${infer Letter}${infer Rest}`
  ? `${Letter extends Lowercase<Letter> ? Letter : `_${Lowercase<Letter>}`}${Snake<Rest>}`
  : Name;
export const flagOf = <Name extends string>(option: Name): Snake<Name> =>
  option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) as Snake<Name>;
