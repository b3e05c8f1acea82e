/** Ctrl-C, once to stop in good order, twice to leave at once. */

const INTERRUPTED = 130;

/** Milliseconds: `deno task` passes on a Ctrl-C that the terminal has sent to every process already, so one comes twice. */
const SAME_PRESS = 300;

/** A signal that aborts at the first Ctrl-C or SIGTERM, after `notify`; another one ends the process. */
export function onInterrupt(notify: () => void): AbortSignal {
  const controller = new AbortController();
  let first = Infinity;
  const stop = () => {
    if (performance.now() - first > SAME_PRESS) Deno.exit(INTERRUPTED);
    if (controller.signal.aborted) return;
    first = performance.now();
    notify();
    controller.abort();
  };
  for (const name of ["SIGINT", Deno.build.os === "windows" ? "SIGBREAK" : "SIGTERM"] as const) {
    Deno.addSignalListener(name, stop);
  }
  return controller.signal;
}
