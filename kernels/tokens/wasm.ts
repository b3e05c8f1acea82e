import type { Locals, WasmFunction } from "../../src/wasm/assembler.ts";

export function advance(f: WasmFunction, { counter, by, n }: Locals<"counter" | "by" | "n">): void {
  f.loop(0, n, 1, (i) => f.i32.store(counter, i, f.i32.add(f.i32.loadAt(counter, i), by)));
}

export function append(
  f: WasmFunction,
  { ids, ring, count, B, S }: Locals<"ids" | "ring" | "count" | "B" | "S">,
): void {
  const number = f.i32.load(count), place = f.i32.rem(number, S);
  f.loop(0, B, 1, (b) => f.i32.store(ring, f.i32.add(f.i32.mul(b, S), place), f.i32.loadAt(ids, b)));
  f.i32.store(count, 0, f.i32.add(number, 1));
}

export function latest(
  f: WasmFunction,
  { ring, count, ids, B, S, T }: Locals<"ring" | "count" | "ids" | "B" | "S" | "T">,
): void {
  const number = f.i32.load(count), zero = f.i32.constant(0);
  f.loop(0, B, 1, (b) => {
    const source = f.i32.at(ring, f.i32.mul(b, S)), target = f.i32.at(ids, f.i32.mul(b, T));
    f.loop(0, T, 1, (t) => {
      const at = f.i32.sub(f.i32.add(number, t), T), token = f.i32.select(f.i32.ltSigned(at, zero), zero, at);
      f.i32.store(target, t, f.i32.loadAt(source, f.i32.rem(token, S)));
    });
  });
}
