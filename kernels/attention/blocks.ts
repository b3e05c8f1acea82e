/** Helpers of attention's WebAssembly kernels: addresses of heads, regions of the scratch memory, dropout factors. */
import type { CpuPhase, Layouts } from "../../src/kernel.ts";
import type { F32Local, I32, I32Local, Lanes, Locals, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { NATIVE, ROWS, tileColumns } from "../../src/wasm/gemm.ts";
import { type Philox, philox } from "../../src/wasm/philox.ts";

export type Dropout = Locals<"seed" | "stream" | "threshold", "gain"> & { readonly offset: I32Local | undefined };

/** Rows and columns of the tile that the multiplication computes: machine code's if `native`, else WebAssembly's. */
export const tileOf = (native: boolean): { rows: number; columns: 8 | 16 | typeof NATIVE.columns } =>
  native ? NATIVE : { rows: ROWS, columns: tileColumns() };

/**
 * Least number of tokens for which machine code's wide tile pays. In shorter sequences too much of the tile falls on
 * keys that a query does not see.
 */
const LONG = 128;

/**
 * Returns a function that chooses between two versions of a kernel's only phase, by T. `emit` gets `native`: whether
 * the phase multiplies with machine code's tile.
 */
export function byTile<Sizes extends { readonly T: number }, Of>(
  phase: Omit<CpuPhase<Sizes, Of>, "emit">,
  emit: (f: WasmFunction, of: Of, native: boolean) => void,
): (sizes: Sizes, layouts: Layouts, native: boolean) => readonly CpuPhase<Sizes, Of>[] {
  const [wasm, machine] = [false, true].map((
    native,
  ) => [{ ...phase, emit: (f: WasmFunction, of: Of) => emit(f, of, native) }]);
  return ({ T }, _layouts, native) => native && T >= LONG ? machine : wasm;
}

/** ⌈n / size⌉ · size. */
export const roundUp = (f: WasmFunction, n: I32, size: number): I32Local => f.i32.mul(f.i32.divUp(n, size), size);

/**
 * Returns a function that allocates a region of the given number of floats in the thread's scratch memory. Each region
 * starts on a cache line.
 */
export function regions(f: WasmFunction): (floats: I32) => I32Local {
  let top = f.scratch(0);
  return (floats) => {
    const region = top;
    top = f.i32.at(region, roundUp(f, floats, 16));
    return region;
  };
}

/**
 * Finds head number b · heads + h in a tensor (B, T, parts, heads, width). Returns the address of a token's row in a
 * part, and the stride in bytes from token to token.
 */
export function headOf(
  f: WasmFunction,
  { T, heads, width }: Locals<"T" | "heads" | "width">,
  head: I32Local,
  tensor: I32Local,
  parts: number,
) {
  const part = f.i32.mul(f.i32.mul(heads, width), 4), stride = f.i32.mul(part, parts);
  const batch = f.i32.add(tensor, f.i32.mul(f.i32.mul(f.i32.div(head, heads), T), stride));
  const first = f.i32.at(batch, f.i32.mul(f.i32.rem(head, heads), width));
  const row = (number: number, token: I32): I32Local =>
    f.i32.add(f.i32.add(first, f.i32.mul(part, number)), f.i32.mul(stride, token));
  return { row, stride };
}

/**
 * Emits dropout's code: `draw` computes a counter's random words, `factor` turns a word into its element's factor, 0 or
 * gain.
 */
export interface Dropped {
  readonly draw: Philox;
  readonly factor: (v: Lanes, word: Vector) => Vector;
}

/** Prepares dropout before a kernel's loops; undefined if nothing is dropped. */
export function dropoutOf(
  f: WasmFunction,
  { offset, seed, stream, threshold, gain }: Dropout,
): Dropped | undefined {
  if (!offset) return undefined;
  const least = f.splat(f.f32.fromSize(threshold)), gains = f.splat(gain);
  return {
    draw: philox(f, stream, f.i32.load(offset), seed),
    factor: (v, word) => v.and(v.ge(v.fromI32(v.shr(word, 8)), least), gains), // 24 bits are exact in f32
  };
}

/**
 * The number of a query's first Philox counter. Each counter serves four keys, and every query starts with a new one.
 */
export const firstCounter = (f: WasmFunction, T: I32Local, head: I32Local, query: I32): I32Local =>
  f.i32.mul(f.i32.add(f.i32.mul(head, T), query), f.i32.divUp(T, 4));

/** For each token, the first key of its document. Undefined if each row is one document. */
export interface Starts {
  readonly starts: I32Local | undefined;
}

/**
 * Defines a function that writes, as floats, the first key that each of `count` queries sees, from query number `query`
 * on, to `into`. It reads them from `starts` and clamps each to between 0 and the query's own number.
 */
export function defineFirstKeys(f: WasmFunction) {
  return f.define("first_keys", ["i32", "i32", "i32", "i32"], (f, starts, query, count, into) => {
    const zero = f.splat(0);
    f.forEach(0, count, (at, v) => {
      const queries = v.fromI32(v.addI32(v.iota(), f.splatI32(f.i32.add(query, at))));
      v.store(into, at, v.max(zero, v.min(queries, v.fromI32(v.load(starts, at)))));
    });
  });
}

/** 1 / √width. */
export const scaleOf = (f: WasmFunction, width: I32Local): F32Local => f.f32.div(1, f.f32.sqrt(f.f32.fromSize(width)));

/**
 * Defines a function that writes factor · row to `into`, or adds it if `fresh` is false. The row has `width` elements,
 * stored in pieces of W that are `stride` bytes apart.
 */
export function defineWriteRow(f: WasmFunction, W: number, fresh = true) {
  return f.define("write", ["i32", "i32", "i32", "f32", "i32"], (f, row, stride, width, factor, into) => {
    const factors = f.splat(factor), piece = f.i32.copy(row);
    into.fresh = fresh;
    f.loop(0, f.i32.divUp(width, W), 1, (i) => {
      const first = f.i32.mul(i, W), left = f.i32.min(f.i32.sub(width, first), W);
      const part = Object.assign(f.i32.at(into, first), { fresh });
      f.forEach(0, left, (at, v) => v.accumulate(part, at, v.mul(v.load(piece, at), factors)));
      f.i32.advance(piece, stride);
    });
  });
}
