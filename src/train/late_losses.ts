import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { launch } from "../engine/launch.ts";
import { Pace } from "../loop/pace.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { NumberArray } from "../kernel.ts";
import type { Measures } from "./task.ts";

/** An update that was launched; its loss and norm are still on the device. */
interface Waiting {
  readonly iter: number;
  readonly lr: number;
  /** Whether the update is reported. If not, its numbers are only checked to be finite. */
  readonly logged: boolean;
  readonly tokens: number;
  readonly loss: Tensor;
  /** Shape (1). */
  readonly gradNorm: Tensor;
  /** The task's measures, in the order of their names. */
  readonly measured?: Tensor;
  /** Measures of the update that are known on the host. */
  readonly drawn?: Measures;
}

/** An update whose numbers were read. `tokens` and `ms` are means over all updates since the read before. */
export interface Update extends Omit<Waiting, "loss" | "gradNorm" | "measured"> {
  readonly loss: number;
  readonly gradNorm: number;
  readonly measured?: NumberArray;
  readonly ms: number;
}

/** Milliseconds between two waits for the device: short enough that Ctrl-C and progress lines feel immediate. */
const PACE = 300;

/**
 * Losses and gradient norms of the latest updates. On devices where a read blocks, they are read in batches, a few
 * updates late. Only logged updates and the newest one are read. That is enough to detect divergence: weights that
 * became NaN stay NaN.
 */
export class LateLosses implements Disposable {
  #waiting: Waiting[] = [];
  #last: Waiting | undefined;
  #updates = 0;
  #tokens = 0;
  #since = 0;
  readonly #pace = new Pace(PACE);

  /** Called before each update: starts the clock if no update is waiting. */
  begin(): void {
    if (this.#updates > 0) return;
    this.#since = performance.now();
    this.#pace.begin();
  }
  /** Called after each update: copies the numbers of a logged update, which the next update overwrites. */
  add(update: Waiting): void {
    this.#updates++;
    this.#tokens += update.tokens;
    this.#last = update;
    if (!update.logged) return;
    using scope = update.loss.device.scope();
    const copy = (x: Tensor) => scope.keep(launch(accumulate, { x: x.alias([x.size]) }).sum); // a sum of one term is a copy
    const { loss, gradNorm, measured } = update;
    this.#waiting.push({ ...update, loss: copy(loss), gradNorm: copy(gradNorm), measured: measured && copy(measured) });
  }
  /** Whether the next {@linkcode read} is due: at once if reads do not block, otherwise about every 300 ms. */
  get due(): boolean {
    return this.#last !== undefined && (this.#last.loss.device.readsAtOnce || this.#updates >= this.#pace.steps);
  }
  /** Waits for the device. @returns the logged updates since the last read, and the newest update */
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
