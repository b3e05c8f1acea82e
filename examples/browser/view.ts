/** The page's view of a run. */
import type { FromEngine, Path } from "./messages.ts";
import { plotLosses, type Point } from "../../src/page/plot.ts";

/** Returns the element with this id, which must exist. */
export const find = <E extends HTMLElement = HTMLElement>(id: string): E => document.getElementById(id) as E;

const FIGURES = ["iteration", "loss", "val-loss", "ms", "speed", "parameters"];
/** Number of steps over which times are averaged. The log has a line for every tenth step, too. */
const STEPS = 10;
const MOST_LINES = 500, MOST_SAMPLES = 50;

const whole = (value: number) => Math.round(value).toLocaleString("en");

/** The plot of the loss, redrawn at most once per frame, in the size of its box. */
class LossPlot {
  #batches: Point[] = [];
  #heldOut: Point[] = [];
  #entropy: number | undefined;
  #last = 1;
  #waiting = false;
  /** The pointer's x, in pixels. */
  #pointed: number | undefined;

  constructor(readonly box: HTMLElement) {
    new ResizeObserver(() => this.#draw()).observe(box);
    box.addEventListener("pointermove", ({ clientX }) => this.#point(clientX - box.getBoundingClientRect().left));
    box.addEventListener("pointerleave", () => this.#point(undefined));
    this.#draw();
  }

  /** Removes all points. @param last the last iteration of the axis */
  clear(last: number, entropy: number | undefined): void {
    this.#batches = [];
    this.#heldOut = [];
    this.#last = last;
    this.#entropy = entropy;
    this.#redraw();
  }
  addBatch(iter: number, loss: number): void {
    this.#batches.push([iter, loss]);
    this.#redraw();
  }
  addHeldOut(iter: number, loss: number): void {
    this.#heldOut.push([iter, loss]);
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
    const losses = { batches: this.#batches, heldOut: this.#heldOut, entropy: this.#entropy, last: this.#last };
    this.box.innerHTML = plotLosses(losses, { width, height }, this.#pointed);
  }
}

export class View {
  readonly #plot = new LossPlot(find("plot"));
  /** Milliseconds and tokens per second of the last steps. */
  #steps: { ms: number; tokensPerSecond: number }[] = [];
  #last = 1;

  /** Clears the view for another run. */
  clear(last: number, entropy?: number): void {
    this.#last = last;
    this.#steps = [];
    this.#plot.clear(last, entropy);
    find("entropy-key").hidden = entropy === undefined;
    find<HTMLProgressElement>("progress").value = 0;
    for (const id of FIGURES) find(id).textContent = "–";
    for (const id of ["path", "keeping", "output", "log"]) find(id).textContent = "";
    for (const id of ["error", "write-error", "export-error"]) find(id).hidden = true;
    find("samples").replaceChildren();
  }

  status(state: string, words: string): void {
    find("status").textContent = words;
    document.body.dataset.state = state;
  }
  error(why: string, id = "error"): void {
    find(id).textContent = why;
    find(id).hidden = false;
  }

  show(message: FromEngine): void {
    switch (message.kind) {
      case "loaded": {
        const { path, parameters, vocabSize, blockSize, name } = message;
        this.#way(path, parameters);
        this.#log(`${name}: ${whole(parameters)} parameters, ${whole(vocabSize)} tokens, context ${whole(blockSize)}`);
        break;
      }
      case "started": {
        const { path, parameters, trained, vocabSize, tokens, unsaved } = message;
        this.#way(path, parameters);
        find("keeping").textContent = unsaved === undefined
          ? "Saved in this browser: the run survives a reload"
          : `Not saved, and lost when this page is closed: ${unsaved}`;
        if (trained !== undefined) this.#log(`trains an adapter of ${whole(trained)} parameters`);
        this.#log(
          `${whole(vocabSize)} different tokens; ${whole(tokens[0])} tokens to train on, ${whole(tokens[1])} held out`,
        );
        break;
      }
      case "step":
        this.#step(message);
        break;
      case "evaluation": {
        const { iter, trainLoss, valLoss } = message;
        this.#plot.addHeldOut(iter, valLoss);
        find("val-loss").textContent = valLoss.toFixed(3);
        this.#log(`step ${iter}: train loss ${trainLoss.toFixed(4)}, val loss ${valLoss.toFixed(4)}`);
        break;
      }
      case "text":
        if (message.iter === undefined) find("output").append(message.text);
        else sampleAt(message.iter).append(message.text);
        break;
      case "error":
        if (message.during === "writing") this.error(message.message, "write-error");
        if (message.during === "export") this.error(message.message, "export-error");
        this.#log(`error: ${message.message}`);
        break;
      case "stopped":
      case "finished":
        if (message.kind === "finished") find<HTMLProgressElement>("progress").value = 1;
        this.#log(`${message.kind} after ${message.iter} updates`);
    }
  }

  #way(path: Path, parameters: number): void {
    find("path").textContent = pathInWords(path);
    find("parameters").textContent = whole(parameters);
    if (path.device === "cpu" && path.noGPU) this.#log(`no GPU: ${path.noGPU}`);
    this.#log(pathInWords(path));
  }
  #step({ iter, loss, ms, tokensPerSecond }: Extract<FromEngine, { kind: "step" }>): void {
    this.#plot.addBatch(iter, loss);
    this.#steps = [...this.#steps.slice(1 - STEPS), { ms, tokensPerSecond }];
    const mean = (key: "ms" | "tokensPerSecond") =>
      this.#steps.reduce((sum, step) => sum + step[key], 0) / this.#steps.length;
    const figures = { iteration: whole(iter), loss: loss.toFixed(3), ms: `${mean("ms").toPrecision(3)} ms` };
    for (const [id, text] of Object.entries(figures)) find(id).textContent = text;
    find("speed").textContent = whole(mean("tokensPerSecond"));
    find<HTMLProgressElement>("progress").value = iter / this.#last;
    if (iter % STEPS === 0) {
      const speed = `${mean("ms").toFixed(1)} ms, ${(mean("tokensPerSecond") / 1000).toFixed(1)}k tokens/s`;
      this.#log(`iter ${iter}: loss ${loss.toFixed(4)}, ${speed}`);
    }
  }

  /** Starts a new text with its prompt. */
  begin(prompt: string): void {
    const start = document.createElement("b");
    start.textContent = prompt;
    find("output").replaceChildren(start);
    find("write-error").hidden = true;
  }
  writing(now: boolean): void {
    find("output").ariaBusy = String(now);
  }

  #log(line: string): void {
    const log = find("log"), atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 20;
    log.append(`${line}\n`);
    while (log.childNodes.length > MOST_LINES) log.firstChild!.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}

/** The element for an iteration's sample. A new one is at the top of the list. */
function sampleAt(iter: number): HTMLElement {
  const samples = find("samples"), id = `sample-${iter}`, known = document.getElementById(id);
  if (known) return known;
  const item = document.createElement("li"), title = document.createElement("h3"), text = document.createElement("p");
  title.textContent = iter === 0 ? "Before training" : `After ${whole(iter)} updates`;
  text.id = id;
  text.className = "text";
  item.append(title, text);
  samples.prepend(item);
  while (samples.childNodes.length > MOST_SAMPLES) samples.lastChild!.remove();
  return text;
}

function pathInWords(path: Path): string {
  if (path.device === "webgpu") return `WebGPU: ${path.adapter}`;
  const threads = path.threads === 1 ? "one thread" : `${path.threads} threads`;
  return `CPU with ${threads}${path.isolated ? "" : ", because this page is not cross-origin isolated"}`;
}
