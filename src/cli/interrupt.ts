/**
 * Interruption: the first Ctrl-C stops after saving, the second exits at once. A closed terminal or a lost output also
 * stops.
 */
import type { Progress } from "./progress.ts";

/** The exit status after an interruption: 128 + SIGINT, as in shells. */
export const INTERRUPTED = 130;

/**
 * Milliseconds within which two signals count as one Ctrl-C: the terminal sends it to every process, and `deno task`
 * forwards it.
 */
export const SAME_PRESS = 300;

/**
 * A signal that aborts at the first Ctrl-C or SIGTERM, after calling `notify`. The second one exits the process.
 *
 * @param progress aborts the signal, too, if its output is lost
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
  // A closing terminal can send SIGHUP several times. If no stream is a terminal, nohup may have set SIGHUP to be
  // ignored, and a listener would undo that.
  const onTerminal = [Deno.stdin, Deno.stdout, Deno.stderr].some((stream) => stream.isTerminal());
  if (!windows && onTerminal) Deno.addSignalListener("SIGHUP", stop);
  if (progress) progress.onLost = stop;
  return signal;
}
