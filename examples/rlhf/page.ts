/** Building blocks of the example's result page: charts on linear axes, tables, paragraphs. */
import { circle, curve, element, escape, line, linearTicks, MIDDLE, type Point, text } from "../../src/page/plot.ts";

/** A series of points. */
export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** A line, a dashed line, or dots without a line. */
  readonly kind: "line" | "dashed" | "dots";
  /** Labels of the points. */
  readonly labels?: readonly string[];
}

/** A chart. */
export interface Chart {
  readonly title: string;
  /** Labels of the axes, with the unit. */
  readonly x: string;
  readonly y: string;
  readonly series: readonly Series[];
}

const WIDTH = 760, HEIGHT = 420, LEFT = 56, RIGHT = 16, TOP = 16, BOTTOM = 46;
/**
 * Okabe and Ito's colours, which colour-blind readers can distinguish. The first is for the series with which the other
 * series are compared.
 */
const COLORS = ["#7a7f8a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/** Draws a chart as SVG, with a legend below it. */
export function chart({ title, x, y, series }: Chart): string {
  const points = series.flatMap(({ points }) => points), right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;
  const ticks = ([0, 1] as const).map((axis) => {
    const values = points.map((point) => point[axis]);
    return linearTicks(Math.min(0, ...values), Math.max(...values, 1e-6), axis === 0 ? 9 : 7);
  });
  const [[left, end], [low, high]] = ticks.map((some) => [some[0], some.at(-1)!]);
  const at = ([a, b]: Point): Point => [
    LEFT + (a - left) / (end - left) * (right - LEFT),
    bottom - (b - low) / (high - low) * (bottom - TOP),
  ];
  const parts = [
    ...ticks[0].flatMap((tick) => [
      line(at([tick, low]), at([tick, high]), "grid"),
      text(at([tick, low])[0], bottom + 18, `${tick}`, MIDDLE),
    ]),
    ...ticks[1].flatMap((tick) => [
      line(at([left, tick]), at([end, tick]), "grid"),
      text(LEFT - 8, at([left, tick])[1] + 4, `${tick}`, { "text-anchor": "end" }),
    ]),
    text((LEFT + right) / 2, HEIGHT - 8, x, MIDDLE),
    text(16, (TOP + bottom) / 2, y, { ...MIDDLE, transform: `rotate(-90 16 ${(TOP + bottom) / 2})` }),
  ];
  for (const [i, { points, kind, labels }] of series.entries()) {
    const stroke = COLORS[i % COLORS.length], look = { fill: "none", stroke, "stroke-width": 2 };
    if (kind !== "dots") {
      parts.push(curve(points.map(at), kind === "dashed" ? { ...look, "stroke-dasharray": "6 4" } : look));
    } else parts.push(...points.map((point) => circle(at(point), 5, { fill: stroke })));
    for (const [j, label] of labels?.entries() ?? []) {
      parts.push(text(at(points[j])[0] + 8, at(points[j])[1] + 4, label, { class: "label" }));
    }
  }
  const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title };
  const names = series.map(({ name, kind }, i) =>
    `<li><i class="${kind}" style="--color: ${COLORS[i % COLORS.length]}"></i>${escape(name)}</li>`
  );
  const svg = element("svg", { xmlns: "http://www.w3.org/2000/svg", ...attributes }, parts.join("\n"));
  return `<figure><figcaption>${escape(title)}</figcaption>${svg}<ul>${names.join("")}</ul></figure>`;
}

/** Makes a table; the first row is its header. */
export function table(rows: readonly (readonly string[])[]): string {
  const row = (cells: readonly string[], kind: "th" | "td") =>
    `<tr>${cells.map((cell) => `<${kind}>${escape(cell)}</${kind}>`).join("")}</tr>`;
  const [head, ...body] = rows;
  return `<table><thead>${row(head, "th")}</thead><tbody>${
    body.map((cells) => row(cells, "td")).join("\n")
  }</tbody></table>`;
}

/** Makes an HTML paragraph of a text. */
export const paragraph = (words: string): string => `<p>${escape(words)}</p>`;
/** Makes an HTML heading of a text. */
export const heading = (words: string): string => `<h2>${escape(words)}</h2>`;

const STYLE = `:root { color-scheme: light dark; --ink: #1d1f24; --soft: #5d626e; --grid: #8884; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e4; --soft: #9aa0ad; } }
body { margin: 0 auto; max-width: 50rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); }
figure { margin: 2rem 0; } figcaption { font-weight: 600; } svg { width: 100%; } svg text { font-size: 13px; fill: var(--soft); }
.grid { stroke: var(--grid); } .label { font-size: 11px; }
ul { display: flex; flex-wrap: wrap; gap: 0 1.2rem; margin: 0; padding: 0; list-style: none; font-size: 0.9rem; }
li i { display: inline-block; width: 1.4rem; margin-right: 0.4rem; border-top: 3px solid var(--color); vertical-align: middle; }
li i.dashed { border-top-style: dashed; } li i.dots { width: 0.7rem; border-top-width: 0.7rem; border-radius: 50%; }
table { border-collapse: collapse; font-size: 0.9rem; } th, td { padding: 0.2rem 0.7rem; text-align: left; }
th { border-bottom: 1px solid var(--soft); } td { font-variant-numeric: tabular-nums; }`;

/** Makes a self-contained HTML page. @param body HTML elements */
export function page(title: string, body: readonly string[]): string {
  const head = `<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${
    escape(title)
  }</title>`;
  return `<!doctype html>\n<html lang="en"><head>${head}<style>${STYLE}</style></head>\n<body>\n<h1>${
    escape(title)
  }</h1>\n${body.join("\n")}\n</body></html>\n`;
}
