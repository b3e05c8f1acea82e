/** Log-log plots as SVG text: what scale.ts needs and no more. Transparent, and legible on light and on dark pages. */

export type Point = readonly [x: number, y: number];

export interface Panel {
  readonly title: string;
  /** With the unit. */
  readonly xLabel: string;
  readonly yLabel: string;
  /** A line each, with a name at its end where there are several. */
  readonly series: readonly { readonly name: string; readonly points: readonly Point[] }[];
  /** Where the x axis is labelled; default: at round numbers. */
  readonly ticks?: readonly number[];
  /** Of the dashed line from the first point: 1 for twice the cost at twice the size. */
  readonly slope: number;
}

const WIDTH = 380, HEIGHT = 270, LEFT = 62, RIGHT = 62, TOP = 34, BOTTOM = 46, COLUMNS = 2;
const COLORS = ["#2f7fd6", "#d9722e"];
const STYLE = `text { font: 12px system-ui, sans-serif; fill: #444; } .title { font-weight: 600; }
.grid { stroke: #888; stroke-opacity: 0.3; } .guide { stroke: #888; stroke-dasharray: 4 4; }
@media (prefers-color-scheme: dark) { text { fill: #ccc; } }`;

/** Numbers between two, evenly spread on a logarithmic axis: 1, 2, 5, 10, or powers of 10 alone where there are many. */
function ticks(from: number, to: number): number[] {
  const decades = Math.log10(to / from), steps = decades > 2.2 ? [1] : [1, 2, 5], result: number[] = [];
  for (let e = Math.floor(Math.log10(from)); e <= Math.log10(to); e++) {
    result.push(...steps.map((step) => Number(`${step}e${e}`)).filter((tick) => tick >= from && tick <= to));
  }
  return result;
}

const short = (n: number) => n >= 1e6 ? `${n / 1e6}M` : n >= 1e4 ? `${n / 1e3}k` : `${n}`;
const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** The range of some numbers, with a tenth more on either side of a logarithmic axis. */
function range(values: readonly number[]): readonly [number, number] {
  const [least, greatest] = [Math.min(...values), Math.max(...values)];
  const margin = Math.max((greatest / least) ** 0.1, 1.2);
  return [least / margin, greatest * margin];
}

function draw({ title, xLabel, yLabel, series, slope, ...axis }: Panel): string {
  const points = series.flatMap(({ points }) => points);
  const [x0, x1] = range(points.map(([x]) => x)), [y0, y1] = range(points.map(([, y]) => y));
  const right = WIDTH - RIGHT, bottom = HEIGHT - BOTTOM;
  const X = (x: number) => LEFT + (right - LEFT) * Math.log(x / x0) / Math.log(x1 / x0);
  const Y = (y: number) => bottom - (bottom - TOP) * Math.log(y / y0) / Math.log(y1 / y0);
  const at = ([x, y]: Point) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`;
  const line = (a: Point, b: Point, kind: string) => {
    const [[xa, ya], [xb, yb]] = [a, b].map((point) => at(point).split(","));
    return `<line x1="${xa}" y1="${ya}" x2="${xb}" y2="${yb}" class="${kind}"/>`;
  };
  const text = (x: number, y: number, words: string, more = "") =>
    `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${more}>${escape(words)}</text>`;
  const parts = [text(LEFT, 18, title, ' class="title"')];
  for (const x of axis.ticks ?? ticks(x0, x1)) {
    parts.push(line([x, y0], [x, y1], "grid"), text(X(x), bottom + 16, short(x), ' text-anchor="middle"'));
  }
  for (const y of ticks(y0, y1)) {
    parts.push(line([x0, y], [x1, y], "grid"), text(LEFT - 6, Y(y) + 4, short(y), ' text-anchor="end"'));
  }
  const middle = (TOP + bottom) / 2, turned = ` text-anchor="middle" transform="rotate(-90 14 ${middle})"`;
  parts.push(text((LEFT + right) / 2, HEIGHT - 10, xLabel, ' text-anchor="middle"'), text(14, middle, yLabel, turned));
  for (const [i, { name, points }] of series.entries()) {
    const [x, y] = points[0], [lastX, lastY] = points.at(-1)!, color = COLORS[i % COLORS.length];
    const end = Math.min(lastX, x * ((slope > 0 ? y1 : y0) / y) ** (1 / slope)); // where the guide leaves the panel
    parts.push(line([x, y], [end, y * (end / x) ** slope], "guide"));
    parts.push(`<polyline points="${points.map(at).join(" ")}" fill="none" stroke="${color}" stroke-width="2"/>`);
    for (const point of points) {
      const [cx, cy] = at(point).split(",");
      parts.push(`<circle cx="${cx}" cy="${cy}" r="3" fill="${color}"/>`);
    }
    if (series.length > 1) parts.push(text(X(lastX) + 8, Y(lastY) + 4, name));
  }
  return parts.join("\n");
}

/** @param description for those who cannot see it */
export function plot(panels: readonly Panel[], description: string): string {
  const rows = Math.ceil(panels.length / COLUMNS), columns = Math.min(panels.length, COLUMNS);
  const [width, height] = [columns * WIDTH, rows * HEIGHT];
  const groups = panels.map((panel, i) =>
    `<g transform="translate(${i % COLUMNS * WIDTH} ${Math.floor(i / COLUMNS) * HEIGHT})">\n${draw(panel)}\n</g>`
  );
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" role="img">`;
  return [head, `<title>${escape(description)}</title>`, `<style>${STYLE}</style>`, ...groups, "</svg>\n"].join("\n");
}
