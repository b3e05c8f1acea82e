/** Rounds in which all sides of a comparison take turns, and what comes of them. */
import type { Measure } from "./measures.ts";

/** In the measure's unit. */
export interface Figures {
  readonly best: number;
  readonly median: number;
}

export interface RoundsOptions {
  /** How many are counted, after one in which kernels compile; processes that live for one measurement do that by themselves. */
  readonly rounds: number;
  /** How long a measurement takes at least. */
  readonly seconds: number;
  /** Takes a line about what is going on. */
  readonly note: (line: string) => void;
}

/** Asks for a rate in pieces a second; undefined where there is no answer. */
export type Ask = (seconds: number) => Promise<number | undefined>;

/** @returns the figures of all who have answered */
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
