/**
 * The rows of a client's file as the commands read them: OpenAI's shapes become those of `readExamples`. It is what comes from
 * elsewhere, so a worker reads it whose heap is bounded, and its time for each batch of rows.
 */
import type { Method } from "./job_plan.ts";
import { DataError } from "../errors.ts";
import { builtin } from "../files/system.ts";

/** What the worker is to do. */
export interface RowsTask {
  readonly path: string;
  /** `text`: of rows, their texts one after the other; or a text as it is. */ readonly method: Method | "text";
  /** The file of JSON lines, or the text, that it writes; and beside it `OUTPUT.where`, which line of the client's each line is from. */
  readonly output: string;
}

/** What the file has. */
export interface RowsFound {
  readonly rows: number;
  /** Whether any row is a conversation. */ readonly chats: boolean;
}

export type FromRows = { readonly read: number } | { readonly done: RowsFound } | { readonly failed: string } | {
  readonly broken: string;
};

/** Of the worker's heap. */
const MEGABYTES = 64;
/** Rows of a batch, and how long one may take, in ticks of a clock that stands still when the process does. */
export const BATCH = 64;
const TICK = 100, MOST_TICKS = 10;

interface Thread {
  on(event: "message" | "error" | "exit", listener: (message: FromRows) => void): void;
  unref(): void;
  terminate(): Promise<number>;
}
interface Threads {
  readonly Worker: new (source: URL, options: Record<string, unknown>) => Thread;
}

/**
 * Checks a file and writes its rows.
 *
 * @throws {DataError} naming the line; the message begins with it
 */
export async function prepareRows(task: RowsTask, signal: AbortSignal): Promise<RowsFound> {
  const { Worker } = builtin<Threads>("node:worker_threads");
  const worker = new Worker(new URL("./job_rows_worker.ts", import.meta.url), {
    ...{ workerData: task, resourceLimits: { maxOldGenerationSizeMb: MEGABYTES } },
  });
  worker.unref();
  const { promise, resolve, reject } = Promise.withResolvers<RowsFound>();
  let ticks = -5 * MOST_TICKS, read = 0; // it has more time to begin
  const where = () => `after row ${read}`;
  const timer = setInterval(() => {
    if (++ticks > MOST_TICKS) {
      reject(new DataError(`${where()}: ${BATCH} rows take more than ${TICK * MOST_TICKS / 1000} s`));
    }
  }, TICK);
  const stop = () => reject(signal.reason);
  signal.addEventListener("abort", stop);
  worker.on("message", (message) => {
    ticks = 0;
    if ("read" in message) read = message.read;
    else if ("done" in message) resolve(message.done);
    else reject("failed" in message ? new DataError(message.failed) : new Error(message.broken));
  });
  const ended = () => reject(new DataError(`${where()}: a row takes more than ${MEGABYTES} MB of memory`));
  worker.on("error", ended);
  worker.on("exit", ended);
  try {
    return await promise;
  } finally {
    clearInterval(timer);
    signal.removeEventListener("abort", stop);
    void worker.terminate();
  }
}
