/**
 * Decides how many steps to launch before the next read, on a device where a read waits for all earlier launches. In
 * Deno such a read takes 11 ms or more, so reads should be rare. But they must be frequent enough to show progress, to
 * react to Ctrl-C, and to bound the queue.
 */
export class Pace {
  #steps = 1;
  #since: number;

  /**
   * @param ms desired time from one read to the next, in milliseconds
   * @param most maximum number of steps between two reads
   * @param now a clock in milliseconds
   */
  constructor(readonly ms: number, readonly most = Infinity, readonly now = () => performance.now()) {
    this.#since = now();
  }

  /** Number of steps to launch before the next read. */
  get steps(): number {
    return this.#steps;
  }
  /** Starts the clock, so that the time before is not counted. */
  begin(): void {
    this.#since = this.now();
  }
  /**
   * Call this after each read. Sets {@linkcode steps} so that launching them and reading will take `ms`, judging by the
   * time since the previous read. `steps` at most doubles.
   */
  waited(): void {
    const now = this.now(), factor = Math.min(2, this.ms / Math.max(now - this.#since, 1e-3));
    this.#steps = Math.min(this.most, Math.max(1, Math.floor(this.#steps * factor)));
    this.#since = now;
  }
}
