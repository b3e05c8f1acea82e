/**
 * `@nanogpt/ts/native`: matrix products in machine code, written by TypeScript (assembler.ts, tile.ts), for Linux on
 * x86-64 processors with AVX-512. The code is mapped and called through the system's libc. There is no binary, no
 * compiler and no other library.
 *
 * The memory of the code is never writable and executable at once. It stays mapped for the life of the process, because
 * any device may be using it.
 *
 * @module
 */
import type { Native, NativeTile } from "../device/cpu.ts";
import { KC, NATIVE, tileColumns, timeTile } from "../wasm/gemm.ts";
import { Assembler } from "./assembler.ts";
import { emitFeatures, emitMultiply } from "./tile.ts";

export type { Native, NativeTile };

/** Functions of libc. */
const LIBC = {
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  mprotect: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
} as const;
/** Linux constants: mmap's protections and flags, the value it returns on failure, and the page size. */
const READ_WRITE = 3, READ_EXECUTE = 5, PRIVATE_ANONYMOUS = 0x22, FAILED = 2n ** 64n - 1n, PAGE = 4096;
/** Least speed-up over WebAssembly's tile that counts as a gain; a smaller one could be an error of measurement. */
const GAIN = 1.15;

let loaded: Native | undefined;

/**
 * Loads the machine code, once per process, and measures whether it is faster than WebAssembly. It never throws. If the
 * code cannot run here, or is not faster, the result's `why` gives the reason in one line, and a device created with
 * that result computes without machine code.
 *
 * It needs `--allow-ffi`. Foreign code is not restricted by Deno's other permissions, so grant it only to code that you
 * trust.
 *
 * @returns the value of the option `native` of `createDevice("cpu", { native })`
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

/** Why machine code cannot be tried here, or undefined if it can. Opens no library. */
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
  return { why: `native: off, its products run at ${gain.toFixed(2)} times WebAssembly's rate (${mode} mode) here` };
}

/**
 * Maps code into executable memory.
 *
 * @returns its address
 */
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

/** Results of the function that {@linkcode emitFeatures} emits. */
export type Features = readonly [leaves: number, leaf1: number, leaf7: number, xcr0: number];

function featuresOf(code: bigint): Features {
  const memory = new WebAssembly.Memory({ initial: 1 }), { call, close } = connect(code, memory, 0);
  call();
  close();
  const [leaves, leaf1, leaf7, xcr0] = new Uint32Array(memory.buffer);
  return [leaves, leaf1, leaf7, xcr0];
}

/**
 * Why AVX-512 Foundation cannot be used here, if so: the processor lacks it, or the system does not save its registers.
 * @internal for tests
 */
export function whatIsMissing([leaves, leaf1, leaf7, xcr0]: Features): string | undefined {
  if (leaves < 7 || !(leaf7 >> 16 & 1)) return "this processor has no AVX-512";
  // Bits 1 and 2: SSE and AVX registers. Bits 5 to 7: mask registers, upper halves of zmm0 to zmm15, registers zmm16 to
  // zmm31.
  if (!(leaf1 >> 27 & 1) || (xcr0 & 0xe6) !== 0xe6) return "the system has not turned AVX-512 on";
}

/**
 * Calls the machine code through libc's bsearch. With an array of one element, bsearch calls its comparison function
 * exactly once, with the two addresses that it was given. Deno calls a function from a library in about ten
 * nanoseconds, but a function known only by its address in a microsecond.
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

/**
 * Milliseconds per 20 · KC multiply-adds (of single elements) in machine code, to compare with {@linkcode timeTile}.
 */
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
