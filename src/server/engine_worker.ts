/** The engine's worker: {@linkcode Scheduler}, and the messages that it hears and sends. */
import { Shared, type ToWorker } from "./messages.ts";
import { Scheduler } from "./scheduler.ts";

/** The worker's end of the channel, which TypeScript's types of a window do not have. */
const port = globalThis as unknown as {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: unknown): void;
};

port.onmessage = ({ data }: MessageEvent) => { // the first: the shared memory
  const scheduler = new Scheduler(new Shared(data), (message) => port.postMessage(message));
  port.onmessage = ({ data }) => scheduler.hear(data);
};
