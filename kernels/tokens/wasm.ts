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
