/**
 * The CPU device's threads: the work of a launch is cut into chunks, and whoever is free takes the next.
 *
 * A thread that the system takes away holds up one chunk, not the launch: the others, the calling thread among them, take
 * the rest. Each begins with chunks of its own, the same ones in every launch of a kind, so that its cache holds what it
 * needs again; when they are taken it helps the others. All state is in the first words of the kernels' shared memory. A
 * launch is opened by storing its generation, and a chunk is taken by compare-exchange on its owner's
 * (generation << 12 | next chunk), so that nobody takes a chunk of a launch that has gone.
 */
import { DeviceError } from "../errors.ts";

/** Where the modules lie in the control words, in 32-bit words; before them, each thread has a cache line for its claims. */
export const CONTROL = { modules: 4112, moduleWords: 2, maxModules: 1984, words: 8192 } as const;

/** Machine code that multiplies packed panels, which whoever may load it hands to the CPU device: `loadNative` makes it. */
export interface NativeTile {
  /** Where in the process the code stands. */
  readonly entry: bigint;
  /** Where in a thread's scratch it finds its arguments. */
  readonly argumentsAt: number;
  /** What a thread calls the code with. It is also a worker's source text, so it uses nothing from outside itself. */
  connect(entry: bigint, memory: WebAssembly.Memory, args: number): { call(): void; close(): void };
}

/** What a thread needs to know. It travels to workers, so it is plain data, but for the native tile's function. */
export interface ThreadOptions {
  readonly memory: WebAssembly.Memory;
  /** Address of this thread's scratch. */
  readonly scratch: number;
  /** Its number, from 0, and how many there are. */
  readonly thread: number;
  readonly threads: number;
  readonly native?: NativeTile;
}

export interface Thread {
  /** Runs one compiled kernel over a range of tasks. */
  run(module: number, args: number, begin: number, end: number): void;
  /** Opens a launch and works on it until all of it is done; false where a chunk failed, on whatever thread. */
  launch(module: number, args: number, tasks: number, chunks: number): boolean;
  /** Works on other threads' launches, for ever. */
  serve(): void;
  /** Lets go of what {@linkcode NativeTile.connect} has opened. */
  close(): void;
}

/**
 * One thread. This function is also a worker's source text, so it uses nothing from outside itself.
 *
 * Waiting spins for some 40 µs, since the next launch mostly comes sooner, and then sleeps, so that an idle or a crowded
 * machine loses nothing.
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

  /** Takes chunks of the launch `mine` until there are none: first this thread's own, then the others'. */
  function work(mine: number): void {
    const chunks = words[CHUNKS];
    for (let i = 0; i < threads; i++) {
      const owner = (thread + i) % threads, claims = CLAIMS + CLAIM_WORDS * owner;
      const first = Math.floor(chunks * owner / threads), end = Math.floor(chunks * (owner + 1) / threads);
      for (;;) {
        // A claim of another generation is from a launch that has gone.
        const claim = Atomics.load(words, claims), chunk = claim >>> 12 === mine ? claim & 4095 : first;
        if (chunk >= end) break;
        if (Atomics.load(words, OPEN) !== mine) return;
        // Where the exchange succeeds, the launch is still open, and so what was read of it belongs to it.
        if (Atomics.compareExchange(words, claims, claim, mine << 12 | chunk + 1) === claim) take(chunk, chunks);
      }
    }
  }

  function take(chunk: number, chunks: number): void {
    const tasks = words[TASKS];
    // Whole eights of elements to a chunk where there are many, so that vectors and cache lines are not shared.
    const size = tasks > 64 * chunks ? Math.ceil(tasks / chunks / 8) * 8 : tasks / chunks;
    const begin = Math.min(tasks, Math.floor(chunk * size));
    const end = chunk + 1 === chunks ? tasks : Math.min(tasks, Math.floor((chunk + 1) * size));
    try {
      if (begin < end) run(words[MODULE], words[ARGS], begin, end);
    } catch { // a trap, or no memory to compile: counted as done all the same, or the caller would wait for ever
      Atomics.store(words, FAILED, 1);
    }
    if (Atomics.add(words, DONE, 1) === chunks - 1 && Atomics.load(words, WAITING)) Atomics.notify(words, DONE);
  }

  /** Spins while `busy`, for a while; whether it ended. */
  function spin(busy: () => boolean): boolean {
    const start = performance.now();
    while (performance.now() - start < SPIN) {
      for (let i = 0; i < 32; i++) if (!busy()) return true;
    }
    return false;
  }

  function launch(module: number, args: number, tasks: number, chunks: number): boolean {
    Atomics.store(words, OPEN, 0); // late comers of the last launch find nothing from here on
    if (++generation > LAST_GENERATION) { // an old claim's number would come again
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
      if (open !== 0) work(seen = open); // else it is being opened
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
 * Starts a thread that serves for ever and does not keep the process alive.
 *
 * @returns what ends it
 * @throws {DeviceError} when a browser refuses it
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
  // A worker of a worker may need its parent's event loop to get going, and a launch does not give it any turns: so wait.
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
  throw new TypeError("threads: the worker's text has other constants");
}
