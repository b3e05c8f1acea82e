import type { I32Local, Locals, WasmFunction } from "../../src/wasm/assembler.ts";

type Common = "index" | "axis" | "count" | "inner" | "begin" | "end";

/**
 * Clamps an index to the axis. `min` is unsigned and would clamp a negative index to the end, so negative indices are
 * tested first.
 */
const clamp = (f: WasmFunction, index: I32Local, axis: I32Local): I32Local =>
  f.i32.select(f.i32.ltSigned(index, 0), 0, f.i32.min(index, f.i32.sub(axis, 1)));

/** A task is an element of y. */
export function gather(
  f: WasmFunction,
  { x, y, index, axis, count, inner, begin, end }: Locals<Common | "x" | "y">,
): void {
  const block = f.i32.mul(count, inner);
  f.loop(begin, end, 1, (at) => {
    const place = f.i32.add(f.i32.mul(f.i32.div(at, block), axis), clamp(f, f.i32.loadAt(index, at), axis));
    f.f32.store(y, at, f.f32.loadAt(x, f.i32.add(f.i32.mul(place, inner), f.i32.rem(at, inner))));
  });
}

/** A task is one (o, i): the elements of dx along the axis. */
export function gatherBackward(
  f: WasmFunction,
  { dx, dy, index, axis, count, inner, begin, end }: Locals<Common | "dx" | "dy">,
): void {
  f.loop(begin, end, 1, (line) => {
    const o = f.i32.div(line, inner), i = f.i32.rem(line, inner);
    const from = (pointer: I32Local, length: I32Local) =>
      f.i32.at(pointer, f.i32.add(f.i32.mul(f.i32.mul(o, length), inner), i));
    const into = from(dx, axis), indices = from(index, count), gradients = from(dy, count);
    f.loop(0, count, 1, (j) => {
      const at = f.i32.mul(j, inner), place = f.i32.mul(clamp(f, f.i32.loadAt(indices, at), axis), inner);
      f.f32.store(into, place, f.f32.add(f.f32.loadAt(into, place), f.f32.loadAt(gradients, at)));
    });
  });
}
