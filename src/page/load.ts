/** The page's part *Server*: the current load, counts of requests, and code for using the API. */
import { ask, type Asked, key, onAsked } from "./api.ts";
import { plotCurves } from "./curves.ts";
import { brief, find, make, whole } from "./dom.ts";
import type { Point } from "./plot.ts";
import { parseMetrics, quantile, type Sample, total } from "./prometheus.ts";
import { type Language, snippet } from "./snippets.ts";
import { allModels, fail } from "./state.ts";

/** Milliseconds between two updates, and number of updates in the plot. */
const EVERY = 1000, MOST = 120;

let before: { readonly at: number; readonly samples: readonly Sample[] } | undefined;
let rates: Point[] = [];
let last: Asked | undefined;
const megabytes = (bytes: number) => `${whole(bytes / 2 ** 20)} MB`;
const seconds = (value: number | undefined) =>
  value === undefined
    ? "–"
    : value === Infinity
    ? "> 1 min"
    : value < 1
    ? `≤ ${brief(1000 * value)} ms`
    : `≤ ${brief(value)} s`;

/** Reads the metrics once and shows them. */
async function look(): Promise<void> {
  const samples = parseMetrics(await (await ask("/metrics")).text()), at = performance.now();
  const sum = (name: string) => total(samples, `nanogpt_${name}`);
  const passed = before ? (at - before.at) / 1000 : 0;
  const written = (of: readonly Sample[]) => total(of, "nanogpt_generation_tokens_total");
  const rate = before ? Math.max(0, written(samples) - written(before.samples)) / passed : 0;
  if (before) rates = [...rates.slice(1 - MOST), [Date.now() / 1000, rate]];
  before = { at, samples };
  const figures: Record<string, string> = {
    "load-rate": brief(rate),
    "load-running": `${sum("requests_running")} of ${sum("slots")}`,
    "load-waiting": whole(sum("requests_waiting")),
    "load-first": seconds(quantile(samples, "nanogpt_time_to_first_token_seconds", 0.5)),
    "load-between": seconds(quantile(samples, "nanogpt_inter_token_seconds", 0.5)),
    "load-tokens": whole(sum("generation_tokens_total")),
    "load-cache": megabytes(sum("cache_bytes")),
    "load-memory": megabytes(sum("device_bytes")),
  };
  for (const [id, text] of Object.entries(figures)) find(id).textContent = text;
  const counts = samples.filter(({ name, labels }) =>
    name === "nanogpt_requests_total" && !labels.route.startsWith("/page") && !["/", "/metrics"].includes(labels.route)
  );
  find("requests").replaceChildren(
    ...counts.map(({ labels: { route, status }, value }) =>
      make("tr", {}, make("td", {}, route), make("td", {}, status), make("td", {}, whole(value)))
    ),
  );
  drawRates();
}

function drawRates(): void {
  const box = find("rates"), { clientWidth: width, clientHeight: height } = box, now = Date.now() / 1000;
  if (width === 0) return;
  const points = rates.map(([x, y]): Point => [x - now, y]);
  box.innerHTML = plotCurves(
    {
      curves: [{ name: "tokens a second", points }],
      xLabel: "seconds ago",
      yLabel: "tokens a second",
      from: -MOST,
      to: 0,
    },
    { width, height },
  );
}

let watching = false;
/** Updates *Server* while it is visible. */
export async function watchLoad(): Promise<void> {
  if (watching) return;
  watching = true;
  while (!find("server").hidden) {
    try {
      await look();
    } catch (error) {
      fail(error, "load");
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
  watching = false;
}

export function refreshLoad(): void {
  find("served").replaceChildren(
    ...allModels().map(({ id, context_length, vocab_size, chat, loaded }) =>
      make(
        "tr",
        {},
        make("td", {}, id),
        ...[whole(context_length), whole(vocab_size), chat ? "yes" : "no", loaded ? "yes" : "no"].map((text) =>
          make("td", {}, text)
        ),
      )
    ),
  );
  drawSnippet();
}

function drawSnippet(): void {
  const language = new FormData(find<HTMLFormElement>("language")).get("language") as Language;
  const asked = last ??
    { path: "/v1/completions", body: { model: allModels()[0]?.id ?? "", prompt: "\n", max_tokens: 50 } };
  find("snippet-title").textContent = last ? "Code for your last request" : "Use the API";
  find("snippet").textContent = snippet(asked, language, location.origin, key.value !== "");
}

export function bindLoad(): void {
  onAsked((asked) => {
    last = asked;
    drawSnippet();
  });
  new ResizeObserver(drawRates).observe(find("rates"));
  find("language").addEventListener("change", drawSnippet);
  find("copy").addEventListener("click", async () => {
    const copied = find("copied");
    try {
      await navigator.clipboard.writeText(find("snippet").textContent!);
      copied.textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren(find("snippet"));
      copied.textContent = "Selected; copy it with Ctrl-C";
    }
    setTimeout(() => copied.textContent = "", 3000);
  });
}
