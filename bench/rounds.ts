/** Rounds in which all sides of a comparison take turns. A side is one of the things compared, such as a library. */
import type { Measure } from "./measures.ts";

/** The results of one side, in the measure's unit. */
export interface Figures {
  readonly best: number;
  readonly median: number;
}

export interface RoundsOptions {
  /**
   * Number of rounds that are counted. A round in which kernels compile comes before them; but a process that lives for
   * a single measurement compiles its kernels before it measures.
   */
  readonly rounds: number;
  /** Least duration of a measurement, in seconds. */
  readonly seconds: number;
  /** Prints a line about the progress. */
  readonly note: (line: string) => void;
}

/** Asks a side for its rate, in products, steps or tokens a second. Returns undefined if the side does not answer. */
export type Ask = (seconds: number) => Promise<number | undefined>;

/**
 * Measures all sides in turns.
 *
 * @returns the figures of the sides that have answered
 */
export async function takeTurns<Who extends string>(
  { name, value, alone }: Measure,
  sides: Readonly<Record<Who, Ask>>,
  { rounds, seconds, note }: RoundsOptions,
): Promise<Partial<Record<Who, Figures>>> {
  const rates: Partial<Record<Who, number[]>> = {}, all = Object.entries(sides) as [Who, Ask][];
  for (let round = alone ? 1 : 0; round <= rounds; round++) {
    note(`${name}: ${round === 0 ? "warming up" : `round ${round} of ${rounds}`}`);
    for (const [who, ask] of all) {
      const rate = await ask(seconds);
      if (rate && round > 0) (rates[who] ??= []).push(rate);
    }
  }
  const figures: Partial<Record<Who, Figures>> = {};
  for (const [who, of] of Object.entries(rates) as [Who, number[]][]) {
    figures[who] = { best: value(Math.max(...of)), median: value(median(of)) };
  }
  return figures;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b), middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1] + sorted[Math.floor(middle)]) / 2;
}

/** A number for a table, or a dash. */
export function show(value: number | undefined, digits = 4): string {
  return value?.toLocaleString("en-US", { maximumSignificantDigits: digits }) ?? "—";
}
