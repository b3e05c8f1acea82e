import { describeFlags, fallbacks, type FlagTable, parseCommandLine, type Values } from "../src/cli/flags.ts";

/** The values of a benchmark's flags. If `--help` was passed, prints the help of the flags and returns undefined. */
export function benchValues<T extends FlagTable>(
  flags: T,
  { task, args, print }: { readonly task: string; readonly args: string[]; readonly print: (line: string) => void },
): Values<T> | undefined {
  const { given, help } = parseCommandLine(flags, args), values = { ...fallbacks(flags), ...given };
  if (!help) return values;
  print(`deno task ${task} [--name=value …]\n\n${describeFlags(flags, values)}`);
  return undefined;
}
