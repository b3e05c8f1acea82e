import type { Locals, WasmFunction } from "../../src/wasm/assembler.ts";

export function advance(f: WasmFunction, { counter, by, n }: Locals<"counter" | "by" | "n">): void {
  f.loop(0, n, 1, (i) => f.i32.store(counter, i, f.i32.add(f.i32.loadAt(counter, i), by)));
}

export function proceed(
  f: WasmFunction,
  { chosen, ids, position, history, first, R, steps }: Locals<
    "chosen" | "ids" | "position" | "history" | "first" | "R" | "steps"
  >,
): void {
  const before = f.i32.load(first), place = f.i32.rem(f.i32.div(before, R), steps);
  const row = f.i32.at(history, f.i32.mul(place, R));
  f.loop(0, R, 1, (r) => {
    const id = f.i32.loadAt(chosen, r);
    for (const into of [row, ids]) f.i32.store(into, r, id);
    f.i32.store(position, r, f.i32.add(f.i32.loadAt(position, r), 1));
  });
  f.i32.store(first, 0, f.i32.add(before, R));
}

export function append(
  f: WasmFunction,
  { ids, slot, ring, count, B, S, slots }: Locals<"ids" | "slot" | "ring" | "count" | "B" | "S" | "slots">,
): void {
  f.loop(0, B, 1, (b) => {
    const of = f.i32.loadAt(slot, b);
    f.when(f.i32.lt(of, slots), () => {
      const number = f.i32.loadAt(count, of), place = f.i32.add(f.i32.mul(of, S), f.i32.rem(number, S));
      f.i32.store(ring, place, f.i32.loadAt(ids, b));
      f.i32.store(count, of, f.i32.add(number, 1));
    });
  });
}

export function latest(
  f: WasmFunction,
  { ring, count, slot, ids, B, S, T, slots }: Locals<"ring" | "count" | "slot" | "ids" | "B" | "S" | "T" | "slots">,
): void {
  const zero = f.i32.constant(0);
  f.loop(0, B, 1, (b) => {
    const of = f.i32.min(f.i32.loadAt(slot, b), f.i32.sub(slots, 1)), number = f.i32.loadAt(count, of);
    const source = f.i32.at(ring, f.i32.mul(of, S)), target = f.i32.at(ids, f.i32.mul(b, T));
    f.loop(0, T, 1, (t) => {
      const at = f.i32.sub(f.i32.add(number, t), T), token = f.i32.select(f.i32.ltSigned(at, zero), zero, at);
      f.i32.store(target, t, f.i32.loadAt(source, f.i32.rem(token, S)));
    });
  });
}
