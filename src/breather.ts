/** setImmediate comes round as soon as timers and other work had their turn, without a wait; browsers have none. */
const { setImmediate } = globalThis as { setImmediate?: (callback: () => void) => void };

/** Deno looks for signals only about every twentieth turn; so many are enough for it and for Node. */
const MOST_TURNS = 64;

/**
 * Keeps a long loop from starving its process: signals, timers and other requests get their turns as long as the loop calls
 * {@linkcode Breather.breathe} between its pieces of work.
 */
export class Breather {
  #last = performance.now();

  /** Lets others run, if they have not for 50 ms: a turn for every 10 ms, which takes less than a hundredth of the time. */
  async breathe(): Promise<void> {
    const elapsed = performance.now() - this.#last;
    if (elapsed < 50) return;
    const turns = setImmediate ? Math.min(MOST_TURNS, elapsed / 10) : 1;
    for (let turn = 0; turn < turns; turn++) {
      await new Promise<void>((resolve) => setImmediate ? setImmediate(resolve) : setTimeout(resolve));
    }
    this.#last = performance.now();
  }
}
