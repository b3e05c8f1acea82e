/** Ctrl-C, once to stop in good order, twice to leave at once; a closed terminal and a lost output stop in good order. */
import type { Progress } from "./progress.ts";

/** The exit status then: 128 + SIGINT, as shells count. */
export const INTERRUPTED = 130;

/** Milliseconds: `deno task` passes on a Ctrl-C that the terminal has sent to every process already, so one comes twice. */
export const SAME_PRESS = 300;

/**
 * A signal that aborts at the first Ctrl-C or SIGTERM, after `notify`; another one ends the process.
 *
 * @param progress whose output, when it is lost, aborts the signal, too
 */
export function onInterrupt(notify: () => void, progress?: Progress): AbortSignal {
  const controller = new AbortController(), { signal } = controller;
  let first = Infinity;
  const stop = () => {
    if (signal.aborted) return;
    first = performance.now();
    notify();
    controller.abort();
  };
  const press = () => performance.now() - first > SAME_PRESS ? Deno.exit(INTERRUPTED) : stop();
  const windows = Deno.build.os === "windows";
  Deno.addSignalListener("SIGINT", press);
  Deno.addSignalListener(windows ? "SIGBREAK" : "SIGTERM", press);
  // A terminal that closes may send several. Where none of the three is a terminal, nohup may have SIGHUP ignored, and a
  // listener would undo that.
  const onTerminal = [Deno.stdin, Deno.stdout, Deno.stderr].some((stream) => stream.isTerminal());
  if (!windows && onTerminal) Deno.addSignalListener("SIGHUP", stop);
  if (progress) progress.onLost = stop;
  return signal;
}
