/**
 * Converts the rows of a client's file from OpenAI's formats to the formats of `readExamples`. The file is untrusted,
 * so a worker reads it, with a bounded heap and a bounded time for each batch of rows.
 */
import type { Method } from "./job_plan.ts";
import { DataError } from "../errors.ts";
import { builtin } from "../files/system.ts";

/** The work of the worker. */
export interface RowsTask {
  readonly path: string;
  /** `text` writes the texts of rows one after the other, or copies a text file. */ readonly method: Method | "text";
  /**
   * Path of the file to write: JSON lines, or a text. A second file with this path and the ending `.where` lists, for
   * each line, the line of the client's file that it comes from.
   */
  readonly output: string;
  /** Maximum number of bytes of the written file. */ readonly most: number;
}

/** What was found in the file. */
export interface RowsFound {
  readonly rows: number;
  /** Whether any row is a conversation. */ readonly chats: boolean;
  /** Bytes of the written file. */ readonly bytes: number;
}

export type FromRows = { readonly read: number } | { readonly done: RowsFound } | { readonly failed: string } | {
  readonly broken: string;
};

/** Limit of the worker's heap. */
const MEGABYTES = 64;
/** Number of rows after which the worker reports its progress. */
export const BATCH = 64;
/**
 * Milliseconds between two ticks of a timer, and the maximum number of ticks that a batch may take. Unlike a clock, the
 * timer does not advance while the process is suspended.
 */
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
 * @throws {DataError} if a row is not valid; the message begins with its line
 */
export async function prepareRows(task: RowsTask, signal: AbortSignal): Promise<RowsFound> {
  const { Worker } = builtin<Threads>("node:worker_threads");
  const worker = new Worker(new URL("./job_rows_worker.ts", import.meta.url), {
    ...{ workerData: task, resourceLimits: { maxOldGenerationSizeMb: MEGABYTES } },
  });
  worker.unref();
  const { promise, resolve, reject } = Promise.withResolvers<RowsFound>();
  let ticks = -5 * MOST_TICKS, read = 0; // allows more time for the worker's start
  const where = () => `after row ${read}`;
  const timer = setInterval(() => {
    if (++ticks > MOST_TICKS) {
      reject(new DataError(`${where()}: ${BATCH} rows took more than ${TICK * MOST_TICKS / 1000} s to read`));
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
