/**
 * The CPU device's threads. The tasks of a launch are divided into chunks, which the threads claim one by one.
 *
 * If the system deschedules a thread, it delays only the chunk that the thread works on; the other threads, including
 * the calling one, take the remaining chunks. A thread first claims its own chunks, which are the same in every launch
 * of a kind, so their data is still in its cache. Then it helps other threads.
 *
 * All state is in the first words of the shared memory. To open a launch, the calling thread stores the launch's
 * generation number. To claim a chunk, a thread does a compare-exchange on the owner's word (generation << 12 | next
 * chunk). It fails for a chunk of an earlier launch, because the generation differs.
 */
import { DeviceError } from "../errors.ts";

/**
 * Layout of the control words, in 32-bit words: the table of modules starts at `modules`, after a cache line of claims
 * per thread.
 */
export const CONTROL = { modules: 4112, moduleWords: 2, maxModules: 1984, words: 8192 } as const;

/** Machine code that multiplies packed panels. `loadNative` makes it, and the caller passes it to the CPU device. */
export interface NativeTile {
  /** Address of the code in the process. */
  readonly entry: bigint;
  /** Offset of the arguments in a thread's scratch memory. */
  readonly argumentsAt: number;
  /**
   * Makes the function that calls the code. Workers get its source text, so it must not use names from outside its
   * body.
   */
  connect(entry: bigint, memory: WebAssembly.Memory, args: number): { call(): void; close(): void };
}

/** Options of a thread. They are sent to workers, so they are plain data, except for the functions in `native`. */
export interface ThreadOptions {
  readonly memory: WebAssembly.Memory;
  /** Address of this thread's scratch memory. */
  readonly scratch: number;
  /** Number of this thread, from 0. */
  readonly thread: number;
  readonly threads: number;
  readonly native?: NativeTile;
}

export interface Thread {
  /** Runs one compiled kernel over a range of tasks. */
  run(module: number, args: number, begin: number, end: number): void;
  /** Opens a launch and works on it until all chunks are done. Returns false if a chunk failed on any thread. */
  launch(module: number, args: number, tasks: number, chunks: number): boolean;
  /** Works on launches of the calling thread, forever. */
  serve(): void;
  /** Closes the connection that {@linkcode NativeTile.connect} opened. */
  close(): void;
}

/**
 * Makes one thread. Workers get the source text of this function, so it must not use names from outside its body.
 *
 * To wait, a thread spins for about 40 µs, because the next launch mostly comes sooner. After that it sleeps and leaves
 * the processor to other programs.
 */
export function makeThread({ memory, scratch, thread, threads, native }: ThreadOptions): Thread {
  const OPEN = 0, DONE = 1, SLEEPERS = 2, WAITING = 3, MODULE = 4, ARGS = 5, TASKS = 6, CHUNKS = 7, FAILED = 8;
  const CLAIMS = 16, CLAIM_WORDS = 16, MODULES = 4112, SPIN = 0.04, LAST_GENERATION = 0x7ffff;
  const words = new Int32Array(memory.buffer, 0, 8192);
  const kernels: ((args: number, begin: number, end: number) => void)[] = [];
  let generation = 0, connection: ReturnType<NativeTile["connect"]> | undefined;

  function run(module: number, args: number, begin: number, end: number): void {
    let kernel = kernels[module];
    if (!kernel) {
      const [address, length] = words.subarray(MODULES + 2 * module, MODULES + 2 * module + 2);
      const bytes = new Uint8Array(memory.buffer, address >>> 0, length).slice();
      if (native) connection ??= native.connect(native.entry, memory, scratch + native.argumentsAt);
      const env = { memory, scratch, ...connection && { native: connection.call } };
      const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env });
      kernel = kernels[module] = exports.run as typeof kernel;
    }
    kernel(args, begin, end);
  }

  /**
   * Claims and runs chunks of the launch `mine` until none are left: first this thread's chunks, then chunks of
   * other threads.
   */
  function work(mine: number): void {
    const chunks = words[CHUNKS];
    for (let i = 0; i < threads; i++) {
      const owner = (thread + i) % threads, claims = CLAIMS + CLAIM_WORDS * owner;
      const first = Math.floor(chunks * owner / threads), end = Math.floor(chunks * (owner + 1) / threads);
      for (;;) {
        // A claim with another generation is from an earlier launch.
        const claim = Atomics.load(words, claims), chunk = claim >>> 12 === mine ? claim & 4095 : first;
        if (chunk >= end) break;
        if (Atomics.load(words, OPEN) !== mine) return;
        // If the exchange succeeds, the launch is still open, so the words read above belong to this launch.
        if (Atomics.compareExchange(words, claims, claim, mine << 12 | chunk + 1) === claim) take(chunk, chunks);
      }
    }
  }

  function take(chunk: number, chunks: number): void {
    const tasks = words[TASKS];
    // If there are many tasks, chunks are multiples of 8 elements, so that they share no vectors and cache lines.
    const size = tasks > 64 * chunks ? Math.ceil(tasks / chunks / 8) * 8 : tasks / chunks;
    const begin = Math.min(tasks, Math.floor(chunk * size));
    const end = chunk + 1 === chunks ? tasks : Math.min(tasks, Math.floor((chunk + 1) * size));
    try {
      if (begin < end) run(words[MODULE], words[ARGS], begin, end);
    } catch { // a trap, or no memory to compile; the chunk still counts as done, or the caller would wait forever
      Atomics.store(words, FAILED, 1);
    }
    if (Atomics.add(words, DONE, 1) === chunks - 1 && Atomics.load(words, WAITING)) Atomics.notify(words, DONE);
  }

  /** Spins while `busy()`, for at most 40 µs. Returns whether `busy()` became false. */
  function spin(busy: () => boolean): boolean {
    const start = performance.now();
    while (performance.now() - start < SPIN) {
      for (let i = 0; i < 32; i++) if (!busy()) return true;
    }
    return false;
  }

  function launch(module: number, args: number, tasks: number, chunks: number): boolean {
    Atomics.store(words, OPEN, 0); // from here on, threads still in the last launch can claim nothing
    if (++generation > LAST_GENERATION) { // numbers repeat, so old claims are erased
      generation = 1;
      words.fill(0, CLAIMS, MODULES);
    }
    words[MODULE] = module, words[ARGS] = args, words[TASKS] = tasks, words[CHUNKS] = chunks;
    Atomics.store(words, DONE, 0);
    Atomics.store(words, OPEN, generation);
    if (Atomics.load(words, SLEEPERS)) Atomics.notify(words, OPEN);
    work(generation);
    const unfinished = () => Atomics.load(words, DONE) < chunks;
    while (unfinished() && !spin(unfinished)) {
      const done = Atomics.load(words, DONE);
      Atomics.store(words, WAITING, 1);
      if (done < chunks) Atomics.wait(words, DONE, done, 1);
      Atomics.store(words, WAITING, 0);
    }
    return Atomics.exchange(words, FAILED, 0) === 0;
  }

  function serve(): never {
    for (let seen = 0;;) {
      const nothing = () => Atomics.load(words, OPEN) === seen;
      if (nothing() && !spin(nothing)) {
        Atomics.add(words, SLEEPERS, 1);
        Atomics.wait(words, OPEN, seen, 1000);
        Atomics.sub(words, SLEEPERS, 1);
        continue;
      }
      const open = Atomics.load(words, OPEN);
      if (open !== 0) work(seen = open); // 0: the next launch is just being opened
    }
  }
  function close(): void {
    connection?.close();
    connection = undefined;
  }
  return { run, launch, serve, close };
}

interface NodeWorker {
  unref(): void;
  terminate(): Promise<number>;
}

/**
 * Starts a worker that serves launches forever. It does not keep the process alive.
 *
 * @returns a function that stops the worker
 * @throws {DeviceError} when a browser refuses to start the worker
 */
export async function startWorker({ native, ...options }: ThreadOptions): Promise<() => void> {
  const tile = native && `{ entry: ${native.entry}n, argumentsAt: ${native.argumentsAt}, connect: ${native.connect} }`;
  const start = `((options) => (${makeThread})({ ...options, native: ${tile} }))`;
  const node = globalThis.process?.getBuiltinModule?.("node:worker_threads"); // Deno, Node
  if (node) {
    const source = `${start}(require("node:worker_threads").workerData).serve();`;
    const worker: NodeWorker = new node.Worker(source, { eval: true, workerData: options });
    worker.unref();
    return () => void worker.terminate();
  }
  // A worker started by a worker can need its parent's event loop to start, which launches block: wait until it is ready.
  const source = `onmessage = ({ data }) => { const thread = ${start}(data); postMessage("ready"); thread.serve(); };`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" })), worker = new Worker(url);
  try {
    await new Promise((resolve, reject) => {
      worker.onmessage = resolve;
      worker.onerror = ({ message }) =>
        reject(new DeviceError(`cpu: a thread does not start: ${message ?? "refused"}`));
      worker.postMessage(options);
    });
  } finally {
    URL.revokeObjectURL(url);
  }
  return () => worker.terminate();
}

if (CONTROL.modules !== 4112 || CONTROL.words !== 8192) {
  throw new TypeError("threads: CONTROL and the constants in makeThread differ");
}
