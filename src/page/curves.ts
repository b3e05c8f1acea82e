/** Plots several curves on one axis, such as the losses of runs. */
import { circle, curve, element, END, line, linearTicks, MIDDLE, type Point, text } from "./plot.ts";

export interface Curve {
  readonly name: string;
  /** Points in ascending order of x. */
  readonly points: readonly Point[];
  /** Index of the colour, 0 to 5. */
  readonly colour?: number;
  /** Whether each point is marked, too. */
  readonly dotted?: boolean;
}
export interface Curves {
  readonly curves: readonly Curve[];
  readonly xLabel: string;
  readonly yLabel: string;
  /** Ends of the x axis. Default: 0 and the greatest x. */
  readonly from?: number;
  readonly to?: number;
  /** Whether the x axis is logarithmic. */
  readonly logX?: boolean;
  /** Whether the y axis begins at the least value instead of 0. */
  readonly close?: boolean;
}

const MARGIN = { left: 50, right: 14, top: 26, bottom: 40 };
/** Maximum number of points of a drawn curve. */
const MOST_POINTS = 500;

/** Draws curves as SVG text, in a box of `width` by `height` pixels. */
export function plotCurves(
  { curves, xLabel, yLabel, from = 0, to, logX = false, close = false }: Curves,
  { width, height }: { readonly width: number; readonly height: number },
): string {
  const all = curves.flatMap(({ points }) => points).filter(([, y]) => Number.isFinite(y)), ys = all.map(([, y]) => y);
  const end = Math.max(to ?? all.reduce((most, [x]) => Math.max(most, x), 0), from + 1);
  const lowest = ys.reduce((a, b) => Math.min(a, b), Infinity),
    highest = ys.reduce((a, b) => Math.max(a, b), -Infinity);
  const bottomY = ys.length === 0 ? 0 : close ? lowest : Math.min(0, lowest);
  const topY = ys.length === 0 ? 1 : highest > bottomY ? highest : bottomY + 1;
  const steps = linearTicks(bottomY, topY, height / 60), [low, high] = [steps[0], steps.at(-1)!];
  const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom];
  const along = (x: number) =>
    logX ? Math.log1p(Math.max(0, x - from)) / Math.log1p(end - from) : (x - from) / (end - from);
  const at = ([x, y]: Point): Point => [
    left + along(x) * (right - left),
    bottom - (y - low) / (high - low) * (bottom - MARGIN.top),
  ];
  const parts = steps.flatMap((y) => {
    const [, height] = at([from, y]);
    return [line([left, height], [right, height], "grid"), text(left - 8, height + 4, `${y}`, END)];
  });
  const ticks = logX
    ? Array.from({ length: 8 }, (_, e) => from + 10 ** e).filter((x) => x <= end)
    : linearTicks(from, end, width / 90).filter((x) => x >= from && x <= end);
  for (const x of ticks) {
    const [place] = at([x, low]);
    parts.push(text(place, bottom + 18, x.toLocaleString("en"), place > right - 14 ? END : MIDDLE));
  }
  parts.push(text(right, height - 4, xLabel, END), text(0, 12, yLabel));
  for (const { points, colour = 0, dotted = false } of curves) {
    const drawn = thin(points.filter(([, y]) => Number.isFinite(y))).map(at);
    parts.push(curve(drawn, { class: `c${colour} ${dotted ? "held" : ""}` }));
    if (dotted || drawn.length === 1) {
      for (const point of drawn) parts.push(circle(point, 3, { class: `c${colour}` }));
    }
  }
  const words = curves.map(({ name, points }) => `${name}: ${points.at(-1)?.[1].toPrecision(4) ?? "nothing yet"}`);
  const label = `${yLabel} by ${xLabel}. ${words.join("; ")}`;
  return element("svg", { width, height, role: "img", "aria-label": label }, parts.join("\n"));
}

/** Averages neighbouring points if there are more than can be seen. */
function thin(points: readonly Point[]): Point[] {
  const size = Math.ceil(points.length / MOST_POINTS), means: Point[] = [];
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size),
      mean = (axis: 0 | 1) => part.reduce((sum, p) => sum + p[axis], 0) / part.length;
    means.push([mean(0), mean(1)]);
  }
  return means;
}

/**
 * Exponential moving average, with the bias correction of Adam (Kingma & Ba 2014, arXiv:1412.6980): y[i] = Σ share^j ·
 * x[i − j] / Σ share^j, with sums over j = 0 … i.
 *
 * @param share weight of the past, at least 0 and below 1; 0 does not smooth
 */
export function smoothed(points: readonly Point[], share: number): Point[] {
  let sum = 0, weight = 0;
  return points.map(([x, y]) => {
    sum = share * sum + y;
    weight = share * weight + 1;
    return [x, sum / weight];
  });
}
