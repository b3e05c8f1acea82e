/**
 * `setImmediate`, which calls back after pending timers and events have run, without a delay; undefined in browsers. It
 * is looked up only when needed, because Deno then loads Node's timers, which takes some milliseconds.
 */
const immediate = () => (globalThis as { setImmediate?: (callback: () => void) => void }).setImmediate;
/** Used in browsers instead, to send a message to this thread. Nested timers would wait at least 4 ms there. */
let channel: MessageChannel | undefined;

/** Waits for one turn of the event loop, in which pending work runs. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    const setImmediate = immediate();
    if (setImmediate) return void setImmediate(resolve);
    const { port1, port2 } = channel ??= new MessageChannel();
    port1.addEventListener("message", () => resolve(), { once: true });
    port1.start();
    port2.postMessage(undefined);
  });
}

/**
 * Maximum number of turns at a time. Deno checks for signals only about every twentieth turn, so 64 turns are enough.
 */
const MOST_TURNS = 64;

/**
 * Lets a long loop share its thread: signals, timers and other requests are handled while the loop calls
 * {@linkcode Breather.breathe} between its pieces of work.
 */
export class Breather {
  #last = performance.now() + 50; // later, because the first turn takes 10 ms in Deno, and short loops end before it

  /**
   * Waits for some turns of the event loop if 50 ms have passed since the last time (100 ms at first): one turn for
   * every 10 ms, which takes less than 1 % of the time.
   */
  async breathe(): Promise<void> {
    const elapsed = performance.now() - this.#last;
    if (elapsed < 50) return;
    const turns = immediate() ? Math.min(MOST_TURNS, elapsed / 10) : 1;
    for (let i = 0; i < turns; i++) await turn();
    this.#last = performance.now();
  }
}
