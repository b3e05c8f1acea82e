/**
 * How far to run ahead of a device on which reading waits for all that was launched: in Deno a read costs 11 ms and more, so
 * it should be rare, and yet come often enough for the eye, for Ctrl-C, and for the queue not to grow without end.
 */
export class Pace {
  #steps = 1;
  #since: number;

  /**
   * @param ms how long it may take from one wait to the next
   * @param most how many steps may be made between them
   * @param now the time in milliseconds
   */
  constructor(readonly ms: number, readonly most = Infinity, readonly now = () => performance.now()) {
    this.#since = now();
  }

  /** How many steps to launch before the next wait. */
  get steps(): number {
    return this.#steps;
  }
  /** Begins to measure: what comes before is not counted. */
  begin(): void {
    this.#since = this.now();
  }
  /** Says that the device has been waited for after {@linkcode steps} steps: twice as many next, where there is time. */
  waited(): void {
    const now = this.now(), factor = Math.min(2, this.ms / Math.max(now - this.#since, 1e-3));
    this.#steps = Math.min(this.most, Math.max(1, Math.floor(this.#steps * factor)));
    this.#since = now;
  }
}
