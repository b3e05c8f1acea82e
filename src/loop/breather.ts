/**
 * setImmediate comes round as soon as timers and other work had their turn, without a wait; browsers have none. Asked for when it
 * is needed: Deno loads Node's timers for it, which takes some milliseconds.
 */
const immediate = () => (globalThis as { setImmediate?: (callback: () => void) => void }).setImmediate;
/** Where there is none, a message to oneself: browsers make nested timers wait for 4 ms. */
let channel: MessageChannel | undefined;

/** Lets whatever is waiting run once. */
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

/** Deno looks for signals only about every twentieth turn; so many are enough for it and for Node. */
const MOST_TURNS = 64;

/**
 * Keeps a long loop from starving its process: signals, timers and other requests get their turns as long as the loop calls
 * {@linkcode Breather.breathe} between its pieces of work.
 */
export class Breather {
  #last = performance.now() + 50; // the first turn costs Deno 10 ms, which what is short does without

  /** Lets others run, if they have not for 50 ms, the first time 100: a turn for every 10 ms, less than a hundredth of the time. */
  async breathe(): Promise<void> {
    const elapsed = performance.now() - this.#last;
    if (elapsed < 50) return;
    const turns = immediate() ? Math.min(MOST_TURNS, elapsed / 10) : 1;
    for (let i = 0; i < turns; i++) await turn();
    this.#last = performance.now();
  }
}
