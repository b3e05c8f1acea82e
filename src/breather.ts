/** setImmediate comes round as soon as signals and timers had their turn; a message would come before signals. */
const { setImmediate } = globalThis as { setImmediate?: (callback: () => void) => void };

/**
 * Keeps a long loop from starving its process: signals, timers and other requests get a turn at least every 100 ms, as long
 * as the loop calls {@linkcode Breather.breathe} every 50 ms.
 */
export class Breather {
  #last = performance.now();

  /** Lets others run, if they have not for 50 ms. */
  async breathe(): Promise<void> {
    if (performance.now() - this.#last < 50) return;
    await new Promise<void>((resolve) => setImmediate ? setImmediate(resolve) : setTimeout(resolve));
    this.#last = performance.now();
  }
}
