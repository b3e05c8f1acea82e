/**
 * Reads Prometheus's text format (https://prometheus.io/docs/instrumenting/exposition_formats/), to the extent that
 * this server uses it.
 */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export function parseMetrics(text: string): Sample[] {
  return text.split("\n").flatMap((line) => {
    const [, name, labels = "", value] = /^([\w:]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (!name) return [];
    const pairs = labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g).map(([, key, value]) =>
      [key, value.replace(/\\(.)/g, (_, c) => c === "n" ? "\n" : c)] as const
    );
    return [{ name, labels: Object.fromEntries(pairs), value: Number(value) }];
  });
}

/** Sum of all samples with a name. */
export const total = (samples: readonly Sample[], name: string): number =>
  samples.reduce((sum, sample) => sample.name === name ? sum + sample.value : sum, 0);

/**
 * Estimates a quantile of a histogram: the upper bound of the bucket that the quantile falls into.
 *
 * @param share which quantile: 0.5 is the median
 * @returns undefined if the histogram is empty
 */
export function quantile(samples: readonly Sample[], name: string, share: number): number | undefined {
  const buckets = samples.filter((sample) => sample.name === `${name}_bucket`), all = buckets.at(-1)?.value ?? 0;
  if (all === 0) return undefined;
  return Number(buckets.find(({ value }) => value >= share * all)!.labels.le.replace("+Inf", "Infinity"));
}
