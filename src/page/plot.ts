/**
 * Draws plots as SVG text, for the page and for the benchmarks. On the page the style sheet gives the colours; a file
 * has its own style, with a transparent background and texts that are legible on light and on dark pages.
 */

export type Point = readonly [x: number, y: number];

export const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");

/** Returns the text of an SVG element. @param inside its contents: elements or escaped text */
export function element(name: string, attributes: Readonly<Record<string, string | number>>, inside?: string): string {
  const written = Object.entries(attributes).map(([key, value]) => ` ${key}="${escape(`${value}`)}"`).join("");
  return inside === undefined ? `<${name}${written}/>` : `<${name}${written}>${inside}</${name}>`;
}
const fixed = (pixels: number) => pixels.toFixed(1);
export const text = (x: number, y: number, words: string, more = {}) =>
  element("text", { x: fixed(x), y: fixed(y), ...more }, escape(words));
export const line = ([x1, y1]: Point, [x2, y2]: Point, kind: string) =>
  element("line", { x1: fixed(x1), y1: fixed(y1), x2: fixed(x2), y2: fixed(y2), class: kind });
export const curve = (points: readonly Point[], more: Readonly<Record<string, string | number>>) =>
  element("polyline", { points: points.map(([x, y]) => `${fixed(x)},${fixed(y)}`).join(" "), ...more });
export const circle = ([x, y]: Point, r: number, more: Readonly<Record<string, string>>) =>
  element("circle", { cx: fixed(x), cy: fixed(y), r, ...more });

/** A plot in a file: curves on logarithmic axes. */
export interface Panel {
  readonly title: string;
  /** Label of the axis, with the unit. */
  readonly xLabel: string;
  readonly yLabel: string;
  /** The curves. If there are several, each has its name at its end. */
  readonly series: readonly { readonly name: string; readonly points: readonly Point[] }[];
  /** Positions of the x axis's labels; default: round numbers. */
  readonly ticks?: readonly number[];
  /** Slope of the dashed line from the first point: 1 means twice the cost at twice the size. */
  readonly slope: number;
}

const WIDTH = 380, HEIGHT = 270, LEFT = 62, RIGHT = 62, TOP = 34, BOTTOM = 46, COLUMNS = 2;
const COLORS = ["#2f7fd6", "#d9722e"];
/** The style of texts and lines in files. */
const STYLE = `text { font: 12px system-ui, sans-serif; fill: #444; } .title { font-weight: 600; }
.grid { stroke: #888; stroke-opacity: 0.3; } .guide { stroke: #888; stroke-dasharray: 4 4; }
@media (prefers-color-scheme: dark) { text { fill: #ccc; } }`;
export const MIDDLE = { "text-anchor": "middle" }, END = { "text-anchor": "end" };

/** Round numbers for a logarithmic axis: 1, 2, 5, 10, … or, for a long axis, only powers of 10. */
function logarithmicTicks(from: number, to: number): number[] {
  const decades = Math.log10(to / from), steps = decades > 2.2 ? [1] : [1, 2, 5], result: number[] = [];
  for (let e = Math.floor(Math.log10(from)); e <= Math.log10(to); e++) {
    result.push(...steps.map((step) => Number(`${step}e${e}`)).filter((tick) => tick >= from && tick <= to));
  }
  return result;
}

const short = (n: number) => n >= 1e6 ? `${n / 1e6}M` : n >= 1e4 ? `${n / 1e3}k` : `${n}`;

/** The range of `values` on a logarithmic axis, extended on both sides by a tenth of its length. */
function range(values: readonly number[]): readonly [number, number] {
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  const margin = Math.max((greatest / least) ** 0.1, 1.2);
  return [least / margin, greatest * margin];
}

function drawPanel({ title, xLabel, yLabel, series, slope, ticks }: Panel): string {
  const points = series.flatMap(({ points }) => points);
  const [x0, x1] = range(points.map(([x]) => x)), [y0, y1] = range(points.map(([, y]) => y));
  const right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM, middle = (TOP + bottom) / 2;
  const at = ([x, y]: Point): Point => [
    LEFT + (right - LEFT) * Math.log(x / x0) / Math.log(x1 / x0),
    bottom - (bottom - TOP) * Math.log(y / y0) / Math.log(y1 / y0),
  ];
  const parts = [text(LEFT, 18, title, { class: "title" })];
  for (const x of ticks ?? logarithmicTicks(x0, x1)) {
    parts.push(line(at([x, y0]), at([x, y1]), "grid"), text(at([x, y0])[0], bottom + 16, short(x), MIDDLE));
  }
  for (const y of logarithmicTicks(y0, y1)) {
    parts.push(line(at([x0, y]), at([x1, y]), "grid"), text(LEFT - 6, at([x0, y])[1] + 4, short(y), END));
  }
  const turned = { ...MIDDLE, transform: `rotate(-90 14 ${middle})` };
  parts.push(text((LEFT + right) / 2, HEIGHT - 10, xLabel, MIDDLE), text(14, middle, yLabel, turned));
  for (const [i, { name, points }] of series.entries()) {
    const [x, y] = points[0], last = points.at(-1)!, color = COLORS[i % COLORS.length];
    const end = Math.min(last[0], x * ((slope > 0 ? y1 : y0) / y) ** (1 / slope)); // where the dashed line ends
    parts.push(line(at([x, y]), at([end, y * (end / x) ** slope]), "guide"));
    parts.push(curve(points.map(at), { fill: "none", stroke: color, "stroke-width": 2 }));
    for (const point of points) parts.push(circle(at(point), 3, { fill: color }));
    if (series.length > 1) parts.push(text(at(last)[0] + 8, at(last)[1] + 4, name));
  }
  return parts.join("\n");
}

/**
 * Returns the text of an SVG file.
 *
 * @param size its width and height in pixels
 * @param options.description a title for readers who cannot see the picture
 * @param options.style more style rules, in addition to the rules for texts and grids
 * @param inside the elements, one per line
 */
export function svgFile(
  [width, height]: readonly [width: number, height: number],
  { description, style = "" }: { readonly description: string; readonly style?: string },
  inside: readonly string[],
): string {
  const head = [element("title", {}, escape(description)), element("style", {}, STYLE + style)];
  const attributes = { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${width} ${height}`, width, role: "img" };
  return `${element("svg", attributes, `\n${[...head, ...inside].join("\n")}\n`)}\n`;
}

/** Returns the text of an SVG file with panels. @param description a title for readers who cannot see the plot */
export function plot(panels: readonly Panel[], description: string): string {
  const rows = Math.ceil(panels.length / COLUMNS), columns = Math.min(panels.length, COLUMNS);
  const [width, height] = [columns * WIDTH, rows * HEIGHT];
  const groups = panels.map((panel, i) => {
    const corner = `translate(${i % COLUMNS * WIDTH} ${Math.floor(i / COLUMNS) * HEIGHT})`;
    return element("g", { transform: corner }, `\n${drawPanel(panel)}\n`);
  });
  return svgFile([width, height], { description }, groups);
}

/** The losses of a run; points are iterations and losses. */
export interface Losses {
  readonly batches: readonly Point[];
  readonly heldOut: readonly Point[];
  readonly entropy: number | undefined;
  /** The last iteration of the axis. */
  readonly last: number;
}

const MARGIN = { left: 46, right: 14, top: 26, bottom: 40 };
/** Maximum number of points of the curve of batches. */
const MOST_POINTS = 600;
/**
 * Where the loss axis ends while there is nothing to plot: a little above ln 48, the loss of guessing among 48
 * characters.
 */
const HIGHEST = 4;

/** Draws the losses as SVG text, in a box of `width` by `height` pixels. @param pointed the pointer's x, in pixels */
export function plotLosses(
  losses: Losses,
  { width, height }: { width: number; height: number },
  pointed?: number,
): string {
  const { heldOut, entropy, last } = losses, batches = thinned(losses.batches);
  const all = [...batches, ...heldOut].map(([, loss]) => loss), floor = Math.min(...all, entropy ?? 0, 0);
  const top = all.length > 0 ? Math.max(...all, floor + 0.5) : HIGHEST, steps = linearTicks(floor, top, height / 60);
  const [low, high] = [steps[0], steps.at(-1)!];
  const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom];
  const at = ([iter, loss]: Point): Point => [
    left + iter / last * (right - left),
    bottom - (loss - low) / (high - low) * (bottom - MARGIN.top),
  ];
  const across = (loss: number, kind: string) => line(at([0, loss]), at([last, loss]), kind);
  const parts = steps.flatMap((loss) => [across(loss, "grid"), text(left - 8, at([0, loss])[1] + 4, `${loss}`, END)]);
  for (const iter of linearTicks(0, last, width / 90).filter((iter) => iter <= last)) {
    const [x] = at([iter, 0]);
    parts.push(text(x, bottom + 18, iter.toLocaleString("en"), x > right - 12 ? END : MIDDLE));
  }
  parts.push(text(right, height - 4, "iteration", END), text(0, 12, "nats per token"));
  if (entropy !== undefined) {
    const words = `entropy ${entropy.toFixed(3)}`;
    parts.push(across(entropy, "entropy"), text(left + 8, at([0, entropy])[1] - 6, words, { class: "entropy" }));
  }
  parts.push(curve(batches.map(at), { class: "train" }), curve(heldOut.map(at), { class: "val" }));
  for (const point of heldOut) parts.push(circle(at(point), 3, { class: "val" }));
  const near = pointed === undefined ? undefined : nearest(batches, (pointed - left) / (right - left) * last);
  if (near) {
    const [x] = at(near), words = `iteration ${Math.round(near[0])}: ${near[1].toFixed(3)}`;
    parts.push(line([x, MARGIN.top], [x, bottom], "pointed"), circle(at(near), 4, { class: "pointed" }));
    parts.push(text(right, 12, words, { class: "pointed", ...END }));
  }
  return element("svg", { width, height, role: "img", "aria-label": inWords(losses) }, parts.join("\n"));
}

function inWords({ batches, heldOut }: Losses): string {
  const first = batches[0], last = batches.at(-1), held = heldOut.at(-1);
  if (!last) return "Loss by iteration; nothing yet";
  const also = held ? `, on held-out text ${held[1].toFixed(3)}` : "";
  return `Loss by iteration: ${first[1].toFixed(3)} at first, ${last[1].toFixed(3)} at ${last[0]}${also}`;
}

/** Averages neighbouring points if there are more than can be seen. */
function thinned(points: readonly Point[]): Point[] {
  const size = Math.ceil(points.length / MOST_POINTS), means: Point[] = [];
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size);
    const mean = (axis: 0 | 1) => part.reduce((sum, point) => sum + point[axis], 0) / part.length;
    means.push([mean(0), mean(1)]);
  }
  return means;
}

function nearest(points: readonly Point[], iter: number): Point | undefined {
  const distance = ([x]: Point) => Math.abs(x - iter);
  return points.reduce<Point | undefined>((best, p) => best && distance(best) <= distance(p) ? best : p, undefined);
}

/** About `count` round numbers, from just below `low` to just above `high`. */
export function linearTicks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough)!;
  const first = Math.floor(low / step), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
