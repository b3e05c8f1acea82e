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
  /** Where the pointer is, in pixels. */
  #pointed: number | undefined;

  constructor(readonly box: HTMLElement) {
    new ResizeObserver(() => this.#draw()).observe(box);
    box.addEventListener("pointermove", ({ clientX }) => this.#point(clientX - box.getBoundingClientRect().left));
    box.addEventListener("pointerleave", () => this.#point(undefined));
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

  #point(at: number | undefined): void {
    this.#pointed = at;
    this.#redraw();
  }

  #redraw(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw(): void {
    this.#waiting = false;
    const { clientWidth: width, clientHeight: height } = this.box;
    const batches = thinned(this.#batches), losses = [...batches, ...this.#heldOut].map(({ loss }) => loss);
    const floor = Math.min(...losses, this.#entropy ?? 0, 0);
    const top = losses.length > 0 ? Math.max(...losses, floor + 0.5) : TOP, steps = ticks(floor, top, height / 60);
    const [low, high] = [steps[0], steps.at(-1)!], last = this.#last;
    const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom];
    const x = (iter: number) => left + iter / last * (right - left);
    const y = (loss: number) => bottom - (loss - low) / (high - low) * (bottom - MARGIN.top);

    const svg = element("svg", { width, height, role: "img", "aria-label": this.#description() });
    const add = (name: string, attributes: Record<string, string | number>, text?: string) =>
      svg.append(element(name, attributes, text));
    for (const loss of steps) {
      add("line", { class: "grid", x1: left, x2: right, y1: y(loss), y2: y(loss) });
      add("text", { x: left - 8, y: y(loss) + 4, "text-anchor": "end" }, String(loss));
    }
    for (const iter of ticks(0, last, width / 90).filter((iter) => iter <= last)) {
      const anchor = x(iter) > right - 12 ? "end" : "middle";
      add("text", { x: x(iter), y: bottom + 18, "text-anchor": anchor }, iter.toLocaleString("en"));
    }
    add("text", { x: right, y: height - 4, "text-anchor": "end" }, "iteration");
    add("text", { x: 0, y: 12 }, "nats a character");
    if (this.#entropy !== undefined) {
      const at = y(this.#entropy);
      add("line", { class: "entropy", x1: left, x2: right, y1: at, y2: at });
      add("text", { class: "entropy", x: left + 8, y: at - 6 }, `entropy ${this.#entropy.toFixed(3)}`);
    }

    const line = (points: readonly Point[]) => points.map(({ iter, loss }) => `${x(iter)},${y(loss)}`).join(" ");
    add("polyline", { class: "train", points: line(batches) });
    add("polyline", { class: "val", points: line(this.#heldOut) });
    for (const { iter, loss } of this.#heldOut) add("circle", { class: "val", cx: x(iter), cy: y(loss), r: 3 });
    const pointed = this.#pointed === undefined
      ? undefined
      : nearest(batches, (this.#pointed - left) / (right - left) * last);
    if (pointed) {
      const at = x(pointed.iter), words = `iteration ${Math.round(pointed.iter)}: ${pointed.loss.toFixed(3)}`;
      add("line", { class: "pointed", x1: at, x2: at, y1: MARGIN.top, y2: bottom });
      add("circle", { class: "pointed", cx: at, cy: y(pointed.loss), r: 4 });
      add("text", { class: "pointed", x: right, y: 12, "text-anchor": "end" }, words);
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

function nearest(points: readonly Point[], iter: number): Point | undefined {
  const distance = (point: Point) => Math.abs(point.iter - iter);
  return points.reduce<Point | undefined>((best, p) => best && distance(best) <= distance(p) ? best : p, undefined);
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
