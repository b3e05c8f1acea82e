/** What the engine counts, and its text in Prometheus' format (https://prometheus.io/docs/instrumenting/exposition_formats/). */

/** Observations below bounds; plain data, for it travels between threads. */
export interface Histogram {
  /** In ascending order. */ readonly bounds: readonly number[];
  /** How many were at most the bound, and above the one before; the last are above all. */ readonly counts: number[];
  /** Of all observations. */ sum: number;
}

/** Seconds, and how many. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const ROWS = [1, 2, 4, 8, 16, 32, 64, 128];

function histogram(bounds: readonly number[]): Histogram {
  return { bounds, counts: new Array<number>(bounds.length + 1).fill(0), sum: 0 };
}

/** Counts an observation, or several equal ones. */
export function observe(into: Histogram, value: number, count = 1): void {
  const at = into.bounds.findIndex((bound) => value <= bound);
  into.counts[at < 0 ? into.bounds.length : at] += count;
  into.sum += count * value;
}

/** Where a text was when its reader left. */
export type Where = "queued" | "prompt" | "decode";

/** A fresh set: zeros. */
export const noMetrics = () => ({
  /** Texts that have a slot. */ running: 0,
  /** Texts that wait for one. */ waiting: 0,
  /** Of prompts, computed, and found in the cache. */ promptTokens: { computed: 0, cached: 0 },
  /** Written, and taken by a reader that was still there. */ generationTokens: 0,
  /** Texts whose readers left. */ aborted: { queued: 0, prompt: 0, decode: 0 } as Record<Where, number>,
  /** Slots there are, of all models. */ slots: 0,
  /** Bytes of keys and values. */ cacheBytes: 0,
  /** Bytes that devices hold. */ deviceBytes: 0,
  /** Tensors that devices hold. */ tensors: 0,
  /** Rows of each step. */ batchRows: histogram(ROWS),
  /** Of each step. */ stepSeconds: histogram(SECONDS),
  /** From a request to its first token. */ firstTokenSeconds: histogram(SECONDS),
  /** From one token of a text to the next. */ interTokenSeconds: histogram(SECONDS),
  /** From a request to its slot. */ queueSeconds: histogram(SECONDS),
});
/** What the engine has counted since it began. */
export type EngineMetrics = ReturnType<typeof noMetrics>;

/** A metric's lines: a value for each set of labels. */
export function metricLines(
  name: string,
  type: "counter" | "gauge",
  help: string,
  values: readonly (readonly [labels: Readonly<Record<string, string | number>>, value: number])[],
): string {
  const lines = values.map(([labels, value]) => `${name}${labelText(labels)} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function labelText(labels: Readonly<Record<string, string | number>>): string {
  const pairs = Object.entries(labels).map(([name, value]) =>
    `${name}="${`${value}`.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`
  );
  return pairs.length > 0 ? `{${pairs.join(",")}}` : "";
}

function histogramLines(name: string, help: string, { bounds, counts, sum }: Histogram): string {
  let below = 0;
  const buckets = counts.map((count, i) => `${name}_bucket{le="${bounds[i] ?? "+Inf"}"} ${below += count}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} histogram\n${
    buckets.join("")
  }${name}_sum ${sum}\n${name}_count ${below}\n`;
}

/** The engine's part of `/metrics`. */
export function metricsText(metrics: EngineMetrics): string {
  const one = (value: number) => [[{}, value]] as const;
  const { promptTokens: { computed, cached }, aborted } = metrics, { user, system } = process.cpuUsage();
  return [
    metricLines("nanogpt_requests_running", "gauge", "Texts that are being written.", one(metrics.running)),
    metricLines("nanogpt_requests_waiting", "gauge", "Texts that wait for a slot.", one(metrics.waiting)),
    metricLines("nanogpt_prompt_tokens_total", "counter", "Tokens of prompts, by whether they stood in the cache.", [
      [{ cached: "false" }, computed],
      [{ cached: "true" }, cached],
    ]),
    metricLines("nanogpt_generation_tokens_total", "counter", "Tokens written.", one(metrics.generationTokens)),
    metricLines(
      "nanogpt_aborted_total",
      "counter",
      "Texts whose readers left, by where the texts were.",
      Object.entries(aborted).map(([where, count]) => [{ where }, count] as const),
    ),
    metricLines("nanogpt_slots", "gauge", "Texts that can be written at once.", one(metrics.slots)),
    metricLines("nanogpt_slots_used", "gauge", "Slots that have a text.", one(metrics.running)),
    metricLines("nanogpt_cache_bytes", "gauge", "Bytes of keys and values.", one(metrics.cacheBytes)),
    metricLines("nanogpt_device_bytes", "gauge", "Bytes of all tensors.", one(metrics.deviceBytes)),
    metricLines("nanogpt_device_tensors", "gauge", "Tensors that are alive.", one(metrics.tensors)),
    histogramLines("nanogpt_batch_rows", "Rows of a step.", metrics.batchRows),
    histogramLines("nanogpt_step_seconds", "Time of a step.", metrics.stepSeconds),
    histogramLines("nanogpt_time_to_first_token_seconds", "From request to first token.", metrics.firstTokenSeconds),
    histogramLines("nanogpt_inter_token_seconds", "From one token to the next.", metrics.interTokenSeconds),
    histogramLines("nanogpt_queue_seconds", "From request to slot.", metrics.queueSeconds),
    metricLines("process_cpu_seconds_total", "counter", "Processor time, of all threads.", one((user + system) / 1e6)),
    metricLines("process_resident_memory_bytes", "gauge", "Resident memory.", one(process.memoryUsage().rss)),
  ].join("");
}
