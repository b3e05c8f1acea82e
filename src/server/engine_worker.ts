/** The engine's worker: connects a {@linkcode Scheduler} to the messages that it receives and sends. */
import { Shared, type ToWorker } from "./messages.ts";
import { Scheduler } from "./scheduler.ts";

/** The worker's global scope, which TypeScript types as a window. */
const port = globalThis as unknown as {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: unknown): void;
};

port.onmessage = ({ data }: MessageEvent) => { // the first message is the shared memory
  const scheduler = new Scheduler(new Shared(data), (message) => port.postMessage(message));
  port.onmessage = ({ data }) => scheduler.hear(data);
};
