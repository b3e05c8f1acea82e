/** The plot of the loss, in SVG: drawn anew at most once a frame, in the pixels that its box has. */

interface Point {
  readonly iter: number;
  readonly loss: number;
}

const MARGIN = { left: 46, right: 14, top: 26, bottom: 40 };
/** Batches are drawn as at most so many points. */
const MOST_POINTS = 600;
/** Where the axis ends while there is nothing to plot: a little above ln 48, which is a guess among 48 characters. */
const TOP = 4;

export class LossPlot {
  #batches: Point[] = [];
  #heldOut: Point[] = [];
  #entropy: number | undefined;
  #last = 1;
  #waiting = false;

  constructor(readonly box: HTMLElement) {
    new ResizeObserver(() => this.#draw()).observe(box);
    this.#draw();
  }

  /** @param last the last iteration, where the axis ends */
  clear(last: number, entropy: number | undefined): void {
    this.#batches = [];
    this.#heldOut = [];
    this.#last = last;
    this.#entropy = entropy;
    this.#redraw();
  }
  addBatch(iter: number, loss: number): void {
    this.#batches.push({ iter, loss });
    this.#redraw();
  }
  addHeldOut(iter: number, loss: number): void {
    this.#heldOut.push({ iter, loss });
    this.#redraw();
  }

  #redraw(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw(): void {
    this.#waiting = false;
    const { clientWidth: width, clientHeight: height } = this.box, all = [...this.#batches, ...this.#heldOut];
    const floor = this.#entropy ?? Math.min(...all.map(({ loss }) => loss), 0);
    const top = all.length > 0 ? Math.max(...all.map(({ loss }) => loss), floor + 0.5) : TOP;
    const steps = ticks(Math.min(floor, 0), top, height / 60);
    const [low, high] = [steps[0], Math.max(steps.at(-1)!, top)];
    const x = (iter: number) => MARGIN.left + iter / this.#last * (width - MARGIN.left - MARGIN.right);
    const y = (loss: number) =>
      height - MARGIN.bottom - (loss - low) / (high - low) * (height - MARGIN.top - MARGIN.bottom);

    const svg = element("svg", { width, height, role: "img", "aria-label": this.#description() });
    const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom];
    for (const loss of steps) {
      svg.append(element("line", { class: "grid", x1: left, x2: right, y1: y(loss), y2: y(loss) }));
      svg.append(element("text", { x: left - 8, y: y(loss) + 4, "text-anchor": "end" }, String(loss)));
    }
    for (const iter of ticks(0, this.#last, width / 90).filter((iter) => iter <= this.#last)) {
      const anchor = x(iter) > right - 12 ? "end" : "middle";
      svg.append(element("text", { x: x(iter), y: bottom + 18, "text-anchor": anchor }, iter.toLocaleString("en")));
    }
    svg.append(element("text", { class: "axis", x: right, y: height - 4, "text-anchor": "end" }, "iteration"));
    svg.append(element("text", { class: "axis", x: 0, y: 12 }, "nats a character"));
    if (this.#entropy !== undefined) {
      const at = y(this.#entropy);
      svg.append(element("line", { class: "entropy", x1: left, x2: right, y1: at, y2: at }));
      const text = `entropy of the text: ${this.#entropy.toFixed(3)}`;
      svg.append(element("text", { class: "entropy", x: right, y: at - 6, "text-anchor": "end" }, text));
    }
    const line = (points: readonly Point[]) =>
      points.map(({ iter, loss }) => `${x(iter).toFixed(1)},${y(loss).toFixed(1)}`);
    svg.append(element("polyline", { class: "train", points: line(thinned(this.#batches)).join(" ") }));
    svg.append(element("polyline", { class: "val", points: line(this.#heldOut).join(" ") }));
    for (const { iter, loss } of this.#heldOut) {
      svg.append(element("circle", { class: "val", cx: x(iter), cy: y(loss), r: 3 }));
    }
    this.box.replaceChildren(svg);
  }

  #description(): string {
    const batch = this.#batches.at(-1), heldOut = this.#heldOut.at(-1);
    if (!batch) return "Loss by iteration; nothing yet";
    const last = heldOut ? `, on held-out text ${heldOut.loss.toFixed(3)}` : "";
    return `Loss by iteration: ${this.#batches[0].loss.toFixed(3)} at first, ${
      batch.loss.toFixed(3)
    } at ${batch.iter}${last}`;
  }
}

/** Means of neighbours, where there are more points than can be seen. */
function thinned(points: readonly Point[]): Point[] {
  const size = Math.ceil(points.length / MOST_POINTS), means: Point[] = [];
  for (let i = 0; i < points.length; i += size) {
    const part = points.slice(i, i + size),
      mean = (key: keyof Point) => part.reduce((sum, p) => sum + p[key], 0) / part.length;
    means.push({ iter: mean("iter"), loss: mean("loss") });
  }
  return means;
}

/** About `count` round numbers from `low`, or just below, to `high`. */
function ticks(low: number, high: number, count: number): number[] {
  const rough = (high - low) / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough)!;
  const first = Math.floor(low / step), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function element(name: string, attributes: Record<string, string | number>, text = ""): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.textContent = text;
  return made;
}
