/**
 * Packing: the layout of a matrix product's operands before they are multiplied.
 *
 * A panel holds `width` rows of A, or columns of B, interleaved: their elements at k = 0, then at k = 1, and so on. The
 * tile reads it from front to back. The last panel is padded with zeros, so that the tile does not have to test for the
 * matrix's end.
 */
import {
  type Callee,
  type I32,
  type I32Local,
  Lanes,
  type Local,
  type Vector,
  type WasmFunction,
} from "./assembler.ts";
import { leb, simd } from "./encoding.ts";

/** Elements and bytes of a block of q8_0. */
export const Q8_0 = { block: 32, bytes: 34 } as const;

/**
 * Which elements are contiguous in the source. `k`: the elements of a row of A (or a column of B), one for each k.
 * `panel`: the elements at one k of the rows (or columns) that a panel holds.
 */
export type Contiguous = "k" | "panel";

const parameters = ["i32", "i32", "i32", "i32", "i32"] as const;
/**
 * A function that packs. Arguments: source, stride in bytes along the other axis, number of rows or columns, K,
 * destination.
 */
export type Pack = Callee<typeof parameters>;

/**
 * Defines the function that packs `count` rows or columns of K elements, panel by panel.
 *
 * @param options.bf16 whether the source is in bf16; the panels are f32 in any case. Default false
 */
export function definePack(f: WasmFunction, width: number, contiguous: Contiguous, { bf16 = false } = {}): Pack {
  return f.define("pack", parameters, (f, source, stride, count, K, destination) => {
    source.bf16 = bf16;
    const alongK = contiguous === "k", panels = f.i32.div(count, width), rest = f.i32.rem(count, width);
    (alongK ? transpose : copy)(f, width, source, stride, panels, K, destination);
    f.when(rest, () => {
      const zero = f.splat(0), full = f.i32.sub(count, rest), into = f.i32.at(destination, f.i32.mul(full, K));
      const [inPanel, inK]: I32[] = alongK ? [stride, source.bytes] : [source.bytes, stride],
        from = f.i32.add(source, f.i32.mul(full, inPanel));
      f.forEach(0, f.i32.mul(K, width), (at, v) => v.store(into, at, zero));
      f.loop(0, rest, 1, (i) => {
        const element = f.i32.add(from, f.i32.mul(i, inPanel)), place = f.i32.at(into, i);
        element.bf16 = bf16;
        f.loop(0, K, 1, () => {
          f.f32.store(place, 0, f.f32.load(element));
          f.i32.advance(element, inK);
          f.i32.advance(place, 4 * width);
        });
      });
    });
  });
}

/**
 * Bytes that a number of elements takes in panels of the given matrix. In q8_0 the number must be a multiple of 32, a
 * block.
 */
export const bytesInPanels = (f: WasmFunction, { q8, bytes }: I32Local, elements: I32): I32Local =>
  q8 ? f.i32.mul(f.i32.div(elements, Q8_0.block), Q8_0.bytes) : f.i32.mul(elements, bytes);

/**
 * Loads two steps of K of a q8_0 block from the address `pairs` and converts them to f32. Returns [step][eight rows].
 * In memory a block holds the f16 scales of the panel's rows, and then, for each pair of steps, two 8-bit integers of
 * each row.
 *
 * The two integers are loaded as one 16-bit number, extended to 32 bits. The first step's integer is shifted to the
 * top; the second step's remains when the first is masked off. So they are 2²⁴ and 2⁸ times too large, and the scales
 * are smaller by these factors ({@linkcode q8Scales}). These conversions are exact.
 */
export function loadQ8(
  v: Lanes,
  pairs: I32Local,
  bytes: number,
  [low, high]: readonly Vector[][],
): Vector[][] {
  const both = low.map((_, i) => v.loadI16(pairs, bytes + 16 * i));
  return [
    both.map((pair, i) => v.mul(v.fromI32(v.shl(pair, 24)), low[i])),
    both.map((pair, i) => v.mul(v.fromI32(v.and(pair, v.splatI32(-256))), high[i])),
  ];
}
/**
 * The scales of the q8_0 block at `block`, times 2⁻²⁴ for the first of two steps and times 2⁻⁸ for the second: see
 * {@linkcode loadQ8}.
 */
export const q8Scales = (v: Lanes, block: I32Local, width: number): Vector[][] =>
  [2 ** -24, 2 ** -8].map((factor) => Array.from({ length: width / 8 }, (_, i) => v.loadF16(block, 16 * i, factor)));

/**
 * Defines the function that converts steps of a q8_0 panel to f32. Parameters: panel, first step (even), number of
 * steps (even), destination.
 */
export function defineWiden(f: WasmFunction, width: number): Callee<readonly ["i32", "i32", "i32", "i32"]> {
  return f.define("widen", ["i32", "i32", "i32", "i32"], (f, panel, from, count, destination) => {
    const { add, sub, mul, shr, min } = f.i32,
      v = new Lanes(f, 8),
      to = add(from, count),
      place = f.i32.copy(destination);
    f.loop(shr(from, 5), f.i32.divUp(to, Q8_0.block), 1, (number) => {
      const block = add(panel, mul(number, Q8_0.bytes * width)), first = mul(number, Q8_0.block);
      const begin = sub(f.i32.max(from, first), first), end = min(sub(to, first), Q8_0.block);
      const scales = q8Scales(v, block, width), pairs = add(block, add(2 * width, mul(width, begin)));
      f.loop(begin, end, 2, () => {
        loadQ8(v, pairs, 0, scales).flat().forEach((value, i) => v.storeTo(place, 32 * i, value));
        f.i32.advance(pairs, 2 * width);
        f.i32.advance(place, 8 * width);
      });
    });
  });
}

/** Copies the K elements of a row from its panel to `into`, as f32. */
export function unpackRow(
  f: WasmFunction,
  matrix: I32Local,
  width: number,
  { row, K, into }: Record<"row" | "K" | "into", I32Local>,
): void {
  const { add, mul, div, rem } = f.i32, panel = mul(div(row, width), width), column = rem(row, width);
  const from = add(matrix, bytesInPanels(f, matrix, mul(panel, K))), place = f.i32.copy(into);
  if (!matrix.q8) {
    const element = add(from, mul(column, matrix.bytes));
    element.bf16 = matrix.bf16;
    return void f.loop(0, K, 1, () => {
      f.f32.store(place, 0, f.f32.load(element));
      f.i32.advance(element, width * matrix.bytes);
      f.i32.advance(place, 4);
    });
  }
  const block = f.i32.copy(from), step = mul(column, 2);
  f.loop(0, K, Q8_0.block, () => {
    const scale = f.f32.loadF16(add(block, step)), pair = add(add(block, step), 2 * width);
    f.loop(0, Q8_0.block / 2, 1, () => {
      for (const odd of [0, 1]) f.f32.store(place, odd, f.f32.mul(scale, f.f32.fromInt(f.i32.load8(pair, odd))));
      f.i32.advance(pair, 2 * width);
      f.i32.advance(place, 8);
    });
    f.i32.advance(block, Q8_0.bytes * width);
  });
}

/**
 * Offsets at which vectors of four elements cover a panel's width. The last two overlap if the width is not a multiple
 * of four.
 */
const quads = (width: number) => Array.from({ length: Math.ceil(width / 4) }, (_, i) => Math.min(4 * i, width - 4));

type Panels = [f: WasmFunction, width: number, source: I32Local, stride: I32Local, count: I32, K: I32, into: I32Local];

/**
 * Packs full panels of a source in which the elements at one k are contiguous. Its outer loop is over k, so that it
 * reads the source in order.
 */
function copy(...[f, width, source, stride, panels, K, destination]: Panels): void {
  const line = f.i32.copy(source), first = f.i32.copy(destination), next = f.i32.mul(K, 4 * width);
  f.loop(0, K, 1, () => {
    const from = f.i32.copy(line), into = f.i32.copy(first);
    from.bf16 = source.bf16;
    f.loop(0, panels, 1, () => {
      copyRow(f, width, from, into);
      f.i32.advance(from, from.bytes * width);
      f.i32.advance(into, next);
    });
    f.i32.advance(line, stride);
    f.i32.advance(first, 4 * width);
  });
}

function copyRow(f: WasmFunction, width: number, from: I32Local, into: I32Local): void {
  if (width % 8 === 0) {
    const eight = new Lanes(f, 8),
      row = Array.from({ length: width / 8 }, (_, i) => eight.loadFrom(from, 8 * from.bytes * i));
    row.forEach((value, i) => eight.storeTo(into, 32 * i, value));
  } else for (const first of quads(width)) store4(f, into, 4 * first, load4(f, from, from.bytes * first));
}

/**
 * Packs full panels of a source in which each row (or column) along K is contiguous. Transposes blocks of 4×4 elements.
 */
function transpose(...[f, width, source, stride, panels, K, destination]: Panels): void {
  const panel = f.i32.copy(source), place = f.i32.copy(destination);
  f.loop(0, panels, 1, () => {
    f.loop(0, Math.ceil(width / 4), 1, (quad) => { // not unrolled: less code to compile when a process starts
      const first = f.i32.min(f.i32.shl(quad, 2), width - 4);
      const start = f.i32.add(panel, f.i32.mul(stride, first)), into = f.i32.at(place, first);
      const rows = [0, 1, 2, 3].map((i) => f.i32.add(start, f.i32.mul(stride, i)));
      for (const row of rows) row.bf16 = source.bf16;
      const rest = f.loop(0, K, 4, () => {
        const [a, b, c, d] = rows.map((row) => load4(f, row, 0));
        const [ab, cd] = [interleave(f, a, b), interleave(f, c, d)];
        [0, 1].forEach((half) => {
          store4(f, into, 8 * half * width, lowers(f, ab[half], cd[half]));
          store4(f, into, 8 * half * width + 4 * width, uppers(f, ab[half], cd[half]));
        });
        for (const row of rows) f.i32.advance(row, 4 * row.bytes);
        f.i32.advance(into, 16 * width);
      });
      f.loop(rest, K, 1, () => {
        rows.forEach((row, i) => f.f32.store(into, i, f.f32.load(row)));
        for (const row of rows) f.i32.advance(row, row.bytes);
        f.i32.advance(into, 4 * width);
      });
    });
    f.i32.advance(panel, f.i32.mul(stride, width));
    f.i32.advance(place, f.i32.mul(K, 4 * width));
  });
}

type V128 = Local<"v128">;

const load4 = (f: WasmFunction, pointer: I32Local, bytes: number): V128 => {
  if (!pointer.bf16) return f.let("v128", [...f.get(pointer), ...simd(0x00), 2, ...leb(bytes)]);
  return f.let("v128", [...f.get(pointer), ...simd(0x04), 1, ...leb(bytes), ...f.pushI32(16), ...simd(0xab)]);
};
const store4 = (f: WasmFunction, pointer: I32Local, bytes: number, value: V128): void =>
  f.emit(...f.get(pointer), ...f.get(value), ...simd(0x0b), 2, ...leb(bytes));

/** Selects lanes: 0 to 3 are the lanes of a, 4 to 7 the lanes of b. */
const shuffle = (f: WasmFunction, a: V128, b: V128, lanes: number[]): V128 =>
  f.let("v128", [...f.get(a), ...f.get(b), ...simd(0x0d), ...lanes.flatMap((n) => [0, 1, 2, 3].map((i) => 4 * n + i))]);
const interleave = (f: WasmFunction, a: V128, b: V128) => [[0, 4, 1, 5], [2, 6, 3, 7]].map((n) => shuffle(f, a, b, n));
const lowers = (f: WasmFunction, a: V128, b: V128) => shuffle(f, a, b, [0, 1, 4, 5]);
const uppers = (f: WasmFunction, a: V128, b: V128) => shuffle(f, a, b, [2, 3, 6, 7]);
