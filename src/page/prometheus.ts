/** Reads Prometheus's text format (https://prometheus.io/docs/instrumenting/exposition_formats/), as far as this server writes it. */

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

/** The sum of all samples of a name. */
export const total = (samples: readonly Sample[], name: string): number =>
  samples.reduce((sum, sample) => sample.name === name ? sum + sample.value : sum, 0);

/**
 * About the `share`-quantile of what a histogram has counted: the bound of the bucket that it falls into.
 *
 * @returns undefined where it has counted nothing
 */
export function quantile(samples: readonly Sample[], name: string, share: number): number | undefined {
  const buckets = samples.filter((sample) => sample.name === `${name}_bucket`), all = buckets.at(-1)?.value ?? 0;
  if (all === 0) return undefined;
  return Number(buckets.find(({ value }) => value >= share * all)!.labels.le.replace("+Inf", "Infinity"));
}
