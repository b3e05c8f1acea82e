import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { launch } from "../engine/launch.ts";
import { Pace } from "../loop/pace.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { NumberArray } from "../kernel.ts";
import type { Measures } from "./task.ts";

/** An update that was made, its numbers still on the device. */
interface Waiting {
  readonly iter: number;
  readonly lr: number;
  /** Whether it is to be reported, and not only looked at. */
  readonly logged: boolean;
  readonly tokens: number;
  readonly loss: Tensor;
  /** (1) */
  readonly gradNorm: Tensor;
  /** What the task measures, in the order of its names. */
  readonly measured?: Tensor;
  /** What the host knows of it. */
  readonly drawn?: Measures;
}

/** The same, read. `tokens` and `ms` are means of the updates that were read together. */
export interface Update extends Omit<Waiting, "loss" | "gradNorm" | "measured"> {
  readonly loss: number;
  readonly gradNorm: number;
  readonly measured?: NumberArray;
  readonly ms: number;
}

/** Milliseconds from one wait for the device to the next: short enough for Ctrl-C and for the eye. */
const PACE = 300;

/**
 * Losses and gradient norms of the latest updates. Where reading waits for the device they are read together, some updates
 * late; every logged one, and the last, for what is not finite stays so.
 */
export class LateLosses implements Disposable {
  #waiting: Waiting[] = [];
  #last: Waiting | undefined;
  #updates = 0;
  #tokens = 0;
  #since = 0;
  readonly #pace = new Pace(PACE);

  /** Before an update. */
  begin(): void {
    if (this.#updates > 0) return;
    this.#since = performance.now();
    this.#pace.begin();
  }
  /** After it: notes what it has made, which the next one overwrites. */
  add(update: Waiting): void {
    this.#updates++;
    this.#tokens += update.tokens;
    this.#last = update;
    if (!update.logged) return;
    using scope = update.loss.device.scope();
    const copy = (x: Tensor) => scope.keep(launch(accumulate, { x: x.alias([x.size]) }).sum); // added to nothing
    const { loss, gradNorm, measured } = update;
    this.#waiting.push({ ...update, loss: copy(loss), gradNorm: copy(gradNorm), measured: measured && copy(measured) });
  }
  /** Whether it is time to read. */
  get due(): boolean {
    return this.#last !== undefined && (this.#last.loss.device.readsAtOnce || this.#updates >= this.#pace.steps);
  }
  /** Waits for the device. @returns the logged updates since the last time, and the last one */
  async read(): Promise<Update[]> {
    if (!this.#last) return [];
    const due = this.due, all = this.#last.logged ? this.#waiting : [...this.#waiting, this.#last];
    try {
      const values = await Promise.all(all.flatMap(({ loss, gradNorm }) => [loss.item(), gradNorm.item()]));
      const measured = await Promise.all(all.map(({ measured }) => measured?.data()));
      const ms = (performance.now() - this.#since) / this.#updates, tokens = this.#tokens / this.#updates;
      if (due) this.#pace.waited();
      return all.map((update, i) => {
        const [loss, gradNorm] = values.slice(2 * i, 2 * i + 2);
        return { ...update, loss, gradNorm, measured: measured[i], ms, tokens };
      });
    } finally {
      this[Symbol.dispose]();
    }
  }
  [Symbol.dispose](): void {
    for (const { loss, gradNorm, measured } of this.#waiting) {
      loss.dispose();
      gradNorm.dispose();
      measured?.dispose();
    }
    this.#waiting = [];
    this.#last = undefined;
    this.#updates = this.#tokens = 0;
  }
}
