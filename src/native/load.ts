/**
 * `@nanogpt/ts/native`: matrix products in machine code that TypeScript writes (assembler.ts, tile.ts), for Linux on x86-64
 * processors with AVX-512. The system's libc maps the code and calls it; there is no binary, no compiler and no other library.
 *
 * The code is never writable and executable at once, and stays for the life of the process: any device may be using it.
 *
 * @module
 */
import type { Native, NativeTile } from "../device/cpu.ts";
import { KC, NATIVE, tileColumns, timeTile } from "../wasm/gemm.ts";
import { Assembler } from "./assembler.ts";
import { emitFeatures, emitMultiply } from "./tile.ts";

export type { Native, NativeTile };

/** What is taken of libc. */
const LIBC = {
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  mprotect: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
} as const;
/** Of Linux: prot and flags of mmap, and what it returns when it fails. */
const READ_WRITE = 3, READ_EXECUTE = 5, PRIVATE_ANONYMOUS = 0x22, FAILED = 2n ** 64n - 1n, PAGE = 4096;
/** What of the wide or narrow tile's rate is a gain: less may be the clock's. */
const GAIN = 1.15;

let loaded: Native | undefined;

/**
 * Loads the code, once in a process, and asks the processor and the clock whether it is of use. It never throws: where the code
 * cannot run, or is no faster, `why` says so in a line, and a device that is given that computes as without it.
 *
 * It needs `--allow-ffi`, which lets code do anything: Deno's other permissions do not hold what it calls.
 *
 * @returns what `createDevice("cpu", { native })` takes
 * @example
 * ```ts
 * import { createDevice } from "@nanogpt/ts";
 * import { loadNative } from "@nanogpt/ts/native";
 *
 * const native = await loadNative();
 * if (native.why) console.log(native.why);
 * using device = await createDevice("cpu", { threads: 1, native });
 * ```
 */
export async function loadNative(): Promise<Native> {
  if (loaded) return loaded;
  const refused = await unavailable();
  if (refused) return { why: `native: off, ${refused}` };
  try {
    return loaded = load();
  } catch (error) {
    return { why: `native: off, ${error instanceof Error ? error.message : error}` };
  }
}

/** Why there is no asking; nothing is opened for it. */
async function unavailable(): Promise<string | undefined> {
  if (!("Deno" in globalThis)) return "it needs Deno";
  const { os, arch } = Deno.build;
  if (os !== "linux" || arch !== "x86_64") return `it is for Linux on x86-64, and this is ${os} on ${arch}`;
  const { state } = await Deno.permissions.query({ name: "ffi" });
  if (state !== "granted") return "it needs --allow-ffi, which lets code do anything";
}

function load(): Native {
  const x = new Assembler();
  emitFeatures(x);
  const multiply = x.length;
  emitMultiply(x);
  const code = place(x.bytes);
  const missing = whatIsMissing(featuresOf(code));
  if (missing) return { why: `native: off, ${missing}` };
  const tile: NativeTile = { entry: code + BigInt(multiply), argumentsAt: NATIVE.argumentsAt, connect };
  const gain = timeTile(tileColumns()) / timeNative(tile);
  if (gain >= GAIN) return { tile };
  const mode = tileColumns() === 16 ? "wide" : "narrow";
  return { why: `native: off, its products run at ${gain.toFixed(2)} times the rate of ${mode} ones here` };
}

/** Puts code where it can run. @returns its address */
export function place(bytes: Uint8Array): bigint {
  const libc = Deno.dlopen("libc.so.6", LIBC), size = Math.ceil(bytes.length / PAGE) * PAGE, all = BigInt(size);
  try {
    const at = libc.symbols.mmap(null, all, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0n);
    if (!at || Deno.UnsafePointer.value(at) === FAILED) throw new Error("the system grants no memory for code");
    new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(at, size)).set(bytes);
    if (libc.symbols.mprotect(at, all, READ_EXECUTE) !== 0) {
      libc.symbols.munmap(at, all);
      throw new Error("the system forbids executable memory");
    }
    return Deno.UnsafePointer.value(at);
  } finally {
    libc.close();
  }
}

/** What {@linkcode emitFeatures}' function finds. */
export type Features = readonly [leaves: number, leaf1: number, leaf7: number, xcr0: number];

function featuresOf(code: bigint): Features {
  const memory = new WebAssembly.Memory({ initial: 1 }), { call, close } = connect(code, memory, 0);
  call();
  close();
  const [leaves, leaf1, leaf7, xcr0] = new Uint32Array(memory.buffer);
  return [leaves, leaf1, leaf7, xcr0];
}

/** Of AVX-512: Foundation, and that the system saves its registers. @internal for tests */
export function whatIsMissing([leaves, leaf1, leaf7, xcr0]: Features): string | undefined {
  if (leaves < 7 || !(leaf7 >> 16 & 1)) return "this processor has no AVX-512";
  // Bits 1 and 2: SSE and AVX; 5 to 7: masks, the upper halves of the first vectors, the other vectors.
  if (!(leaf1 >> 27 & 1) || (xcr0 & 0xe6) !== 0xe6) return "the system has not turned AVX-512 on";
}

/**
 * libc's bsearch is the door: with one element it calls what compares once, with the addresses that it was given. Deno calls a
 * function that it has found in a library in some ten nanoseconds, but one that is known by its address alone in a microsecond.
 */
const connect: NativeTile["connect"] = (entry, memory, args) => {
  const libc = Deno.dlopen("libc.so.6", {
    bsearch: { parameters: ["pointer", "pointer", "usize", "usize", "pointer"], result: "void" },
  });
  const at = Deno.UnsafePointer.of(new Uint8Array(memory.buffer as ArrayBuffer));
  const key = Deno.UnsafePointer.create(Deno.UnsafePointer.value(at) + BigInt(args));
  const code = Deno.UnsafePointer.create(entry);
  const { bsearch } = libc.symbols;
  return { call: () => bsearch(key, at, 1n, 1n, code), close: () => libc.close() };
};

/** Milliseconds that 20 · KC multiply-adds take, as {@linkcode timeTile} counts them. */
function timeNative({ entry }: NativeTile): number {
  const rows = 10 * NATIVE.rows, columns = 4 * NATIVE.columns, a = 64, b = a + 4 * rows * KC, c = b + 4 * columns * KC;
  const memory = new WebAssembly.Memory({ initial: 8 }), { call, close } = connect(entry, memory, 0);
  let best = Infinity;
  for (let repeat = 0; repeat < 20; repeat++) {
    new Int32Array(memory.buffer).set([a, b, c, 4 * columns, rows, columns, KC, 0, 0]);
    const start = performance.now();
    call();
    best = Math.min(best, performance.now() - start);
  }
  close();
  return best * 20 / (rows * columns);
}
