/**
 * The engine's metrics, and their text in Prometheus's format
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 */

/** A histogram; plain data, because it is sent between threads. */
export interface Histogram {
  /** Upper bounds in ascending order. */ readonly bounds: readonly number[];
  /**
   * Number of observations up to each bound and above the bound before; the last counts observations above all bounds.
   */
  readonly counts: number[];
  /** Sum of all observations. */ sum: number;
}

/** Bounds for seconds, and for rows of a step. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const ROWS = [1, 2, 4, 8, 16, 32, 64, 128];

function histogram(bounds: readonly number[]): Histogram {
  return { bounds, counts: new Array<number>(bounds.length + 1).fill(0), sum: 0 };
}

/** Adds an observation, or several equal ones. */
export function observe(into: Histogram, value: number, count = 1): void {
  const at = into.bounds.findIndex((bound) => value <= bound);
  into.counts[at < 0 ? into.bounds.length : at] += count;
  into.sum += count * value;
}

/** What a text was doing when its client disconnected. */
export type Where = "queued" | "prompt" | "decode";

/** Makes a set of metrics, all 0. */
export const noMetrics = () => ({
  /** Texts that have a slot. */ running: 0,
  /** Texts that wait for a slot. */ waiting: 0,
  /** Number of prompt tokens that were computed, and number of prompt tokens that were found in the cache. */
  promptTokens: { computed: 0, cached: 0 },
  /** Generated tokens, without the tokens of clients that had disconnected. */ generationTokens: 0,
  /** Texts whose clients disconnected. */ aborted: { queued: 0, prompt: 0, decode: 0 } as Record<Where, number>,
  /** Slots of all models. */ slots: 0,
  /** Bytes of keys and values. */ cacheBytes: 0,
  /** Bytes of all tensors on the devices. */ deviceBytes: 0,
  /** Number of tensors on the devices. */ tensors: 0,
  /** Rows of each step. */ batchRows: histogram(ROWS),
  /** Seconds of each step. */ stepSeconds: histogram(SECONDS),
  /** Seconds from a request to its first token. */ firstTokenSeconds: histogram(SECONDS),
  /** Seconds from one token of a text to the next. */ interTokenSeconds: histogram(SECONDS),
  /** Seconds from a request to its slot. */ queueSeconds: histogram(SECONDS),
});
/** The engine's metrics since its start. */
export type EngineMetrics = ReturnType<typeof noMetrics>;

/** Returns a metric's lines, one for each set of labels. */
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

/** Returns the engine's part of `/metrics`. */
export function metricsText(metrics: EngineMetrics): string {
  const one = (value: number) => [[{}, value]] as const;
  const { promptTokens: { computed, cached }, aborted } = metrics, { user, system } = process.cpuUsage();
  return [
    metricLines("nanogpt_requests_running", "gauge", "Texts that are being generated.", one(metrics.running)),
    metricLines("nanogpt_requests_waiting", "gauge", "Texts that wait for a slot.", one(metrics.waiting)),
    metricLines("nanogpt_prompt_tokens_total", "counter", "Tokens of prompts, by whether they were in the cache.", [
      [{ cached: "false" }, computed],
      [{ cached: "true" }, cached],
    ]),
    metricLines("nanogpt_generation_tokens_total", "counter", "Generated tokens.", one(metrics.generationTokens)),
    metricLines(
      "nanogpt_aborted_total",
      "counter",
      "Texts whose clients disconnected, by what the texts were doing.",
      Object.entries(aborted).map(([where, count]) => [{ where }, count] as const),
    ),
    metricLines("nanogpt_slots", "gauge", "Texts that can be generated at once.", one(metrics.slots)),
    metricLines("nanogpt_slots_used", "gauge", "Slots that have a text.", one(metrics.running)),
    metricLines("nanogpt_cache_bytes", "gauge", "Bytes of keys and values.", one(metrics.cacheBytes)),
    metricLines("nanogpt_device_bytes", "gauge", "Bytes of all tensors.", one(metrics.deviceBytes)),
    metricLines("nanogpt_device_tensors", "gauge", "Tensors in memory.", one(metrics.tensors)),
    histogramLines("nanogpt_batch_rows", "Rows of a step.", metrics.batchRows),
    histogramLines("nanogpt_step_seconds", "Time of a step.", metrics.stepSeconds),
    histogramLines(
      "nanogpt_time_to_first_token_seconds",
      "Time from request to first token.",
      metrics.firstTokenSeconds,
    ),
    histogramLines("nanogpt_inter_token_seconds", "Time from one token to the next.", metrics.interTokenSeconds),
    histogramLines("nanogpt_queue_seconds", "Time from request to slot.", metrics.queueSeconds),
    metricLines("process_cpu_seconds_total", "counter", "Processor time, of all threads.", one((user + system) / 1e6)),
    metricLines("process_resident_memory_bytes", "gauge", "Resident memory.", one(process.memoryUsage().rss)),
  ].join("");
}
