/** What attention's WebAssembly kernels share: where a head lies, regions of the scratch, dropout's factors. */
import type { CpuPhase, Layouts } from "../../src/kernel.ts";
import type { F32Local, I32, I32Local, Lanes, Locals, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { NATIVE, ROWS, tileColumns } from "../../src/wasm/gemm.ts";
import { type Philox, philox } from "../../src/wasm/philox.ts";

export type Dropout = Locals<"seed" | "stream" | "threshold", "gain"> & { readonly offset: I32Local | undefined };

/** Rows and columns of the tile that multiplies: machine code's, or WebAssembly's. */
export const tileOf = (native: boolean): { rows: number; columns: 8 | 16 | typeof NATIVE.columns } =>
  native ? NATIVE : { rows: ROWS, columns: tileColumns() };

/** Tokens from which on machine code's wide tile is of use: in less, too much of it falls on keys that a query does not see. */
const LONG = 128;

/** A kernel's only phase, with the tile that suits its sizes; `emit` is told whether that is machine code's. */
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

/** Addresses in the thread's scratch: one region of so many floats behind the other, each on a cache line of its own. */
export function regions(f: WasmFunction): (floats: I32) => I32Local {
  let top = f.scratch(0);
  return (floats) => {
    const region = top;
    top = f.i32.at(region, roundUp(f, floats, 16));
    return region;
  };
}

/** A head, number b · heads + h, in a tensor (B, T, parts, heads, width): its rows, and the bytes from token to token. */
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

/** Dropout at work: a counter's words, and what an element is multiplied with by its word, 0 or gain. */
export interface Dropped {
  readonly draw: Philox;
  readonly factor: (v: Lanes, word: Vector) => Vector;
}

/** Made before a kernel's loops; nothing where nothing is dropped. */
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

/** The number of a query's first Philox counter: each serves four keys, and every query begins with a new one. */
export const firstCounter = (f: WasmFunction, T: I32Local, head: I32Local, query: I32): I32Local =>
  f.i32.mul(f.i32.add(f.i32.mul(head, T), query), f.i32.divUp(T, 4));

/** Where documents start: of B rows of T tokens, each token's first key; nothing where a row is one document. */
export interface Starts {
  readonly starts: I32Local | undefined;
}

/**
 * Defines into ← the first keys that `count` queries from number `query` on see, as floats: their starts, at `starts` from there on,
 * moved into 0 to the query.
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

/** Defines into ← factor · row for a row of `width` elements that lies in pieces of W, `stride` bytes apart. */
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
