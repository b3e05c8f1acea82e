/**
 * How fast this library is on the CPU, compared with other libraries on the same CPU: `deno task bench:peers`.
 *
 * Measures training steps, matrix products and decoding, in rounds in which all sides take turns. A side is a library
 * in one of its modes (sides.ts). Each side runs in a process of its own, which lives for one row of the table, or for
 * a single measurement if the model is large. The first round or step, which compiles, is not counted. Prints tables in
 * Markdown with the best and the median of the rounds, and ratios of medians. If a side cannot run, a line gives the
 * reason, and the remaining sides go on.
 */
import { cpus, release } from "node:os";
import { runCommand } from "../src/cli/command.ts";
import { bool, float, int, text } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import { lossDifferences } from "./losses.ts";
import type { Measure } from "./measures.ts";
import type { Peer } from "./peer.ts";
import { sections } from "./peer_rows.ts";
import { type Ask, type Figures, type RoundsOptions, show, takeTurns } from "./rounds.ts";
import { type Side, sides } from "./sides.ts";

const flags = {
  only: text("", "rows to measure, by words in their names; a minus leaves rows out: training,-dropout"),
  sides: text("", "sides to measure, by words in their names: ours,PyTorch,-256"),
  rounds: int(5, "number of rounds that are counted", { min: 1 }),
  seconds: float(0.5, "least duration of a measurement, in seconds", { min: 0 }),
  threads: int(2, "threads of each side that supports several", { min: 1 }),
  avx2: bool(false, "also measure Python's libraries limited to 256-bit vectors, V8's widest"),
  losses: bool(false, "also compare 100 of our losses with PyTorch's, for the same seed and text"),
  input: text("", "text file for --losses; default: tiny Shakespeare, downloaded once"),
  small: bool(false, "tiny sizes, to test that it runs"),
};

type Print = (line: string) => void;

/**
 * Runs the benchmark.
 *
 * @param print prints a line of the result
 * @param note prints a line about its progress
 */
export async function benchPeers(args: string[], print: Print, note: Print = console.error): Promise<number> {
  const values = benchValues(flags, { task: "bench:peers", args, print });
  if (!values) return 0;
  const { small, rounds, seconds, only } = values, { os, arch } = Deno.build;
  const all = sides(values).filter(wanted(values.sides)), heard = new Map<string, string>();
  const references = [...new Set(all.flatMap(({ reference }) => reference ?? []))];
  print(`${new Date().toISOString().slice(0, 10)}, ${cpus()[0].model}, ${os} ${release()} ${arch}`);
  for (const { title, measures } of sections(small)) {
    const chosen = measures.filter(wanted(only)).filter((measure) => all.some((side) => kindOf(side, measure)));
    if (chosen.length === 0) continue;
    const header = [title, "", "best", "median", ...references.map((name) => `to ${name}`)];
    print(`\n| ${header.join(" | ")} |\n|${" --- |".repeat(header.length)}`);
    for (const measure of chosen) {
      const figures = await compare(measure, all, { rounds, seconds, note, heard });
      for (const line of lines(measure, figures, references)) print(line);
    }
  }
  print("");
  for (const [name, what] of heard) print(`- ${name}: ${what}`);
  if (values.losses) {
    const { threads, input } = values;
    const iterations = small ? 5 : 100;
    const lines = await lossDifferences({ threads, input: input || undefined, iterations, note });
    for (const line of lines) print(`- ${line}`);
  }
  return 0;
}

/**
 * Returns a test for names, from a list of words separated by commas. A name must contain one of the words without a
 * minus, if there are any, and none of the words with a minus.
 */
function wanted(list: string): (named: { name: string }) => boolean {
  const words = list.split(","), not = words.filter((word) => word.startsWith("-")).map((word) => word.slice(1));
  const some = words.filter((word) => !word.startsWith("-"));
  return ({ name }) =>
    (some.length === 0 || some.some((word) => name.includes(word))) && !not.some((word) => name.includes(word));
}

/**
 * The name by which the side knows this kind of request; undefined if the side does not take part in the measurement.
 */
function kindOf({ kinds, takes }: Side, measure: Measure): string | undefined {
  return takes?.(measure) === false ? undefined : kinds[measure.request.kind];
}

/**
 * Measures all sides that take part in a measurement, in turns. Adds each side's description, or the reason why it
 * cannot run, to `heard`.
 */
export async function compare(
  measure: Measure,
  all: readonly Side[],
  { heard, ...options }: RoundsOptions & { heard: Map<string, string> },
): Promise<Map<Side, Figures>> {
  const peers = new Map<Side, Peer>(), asks: Record<string, Ask> = {}, { request, alone } = measure;
  const end = async (side: Side, peer: Peer) => {
    await peer.close();
    if (peer.device) heard.set(side.name, peer.device);
    if (peer.error) heard.set(`${side.name}, left out at ${measure.name}`, peer.error);
  };
  try {
    for (const side of all) {
      const kind = kindOf(side, measure);
      if (!kind) continue;
      const peer = alone ? undefined : await side.start();
      if (peer) peers.set(side, peer);
      asks[side.name] = async (seconds) => {
        if (peer) return await peer.rate({ ...request, kind, seconds });
        const own = await side.start();
        await own.rate({ ...request, kind, seconds: 0 }); // the first run compiles
        const rate = await own.rate({ ...request, kind, seconds });
        await end(side, own);
        return rate;
      };
    }
    const figures = await takeTurns(measure, asks, options);
    return new Map(all.filter(({ name }) => figures[name]).map((side) => [side, figures[side.name]!]));
  } finally {
    for (const [side, peer] of peers) await end(side, peer);
  }
}

/**
 * Lines of the table, one per side. A ratio is the side's median over that of the reference, so 2 is twice the time or
 * twice the rate, depending on the unit.
 */
function lines(measure: Measure, figures: Map<Side, Figures>, references: readonly string[]): string[] {
  const faster = (a: number, b: number) => (measure.unit === "ms" ? Math.min : Math.max)(a, b);
  const bases = references.map((name) => {
    const medians = [...figures].filter(([{ reference }]) => reference === name).map(([, { median }]) => median);
    return medians.length ? medians.reduce(faster) : undefined;
  });
  return [...figures].map(([{ name }, { best, median }], i) => {
    const ratios = bases.map((base) => base && show(median / base, 3));
    return `| ${[i === 0 ? measure.name : "", name, show(best), show(median), ...ratios].join(" | ")} |`;
  });
}

if (import.meta.main) await runCommand((args) => benchPeers(args, console.log));
