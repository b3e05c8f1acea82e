import type { Locals, WasmFunction } from "../../src/wasm/assembler.ts";
import { forEachRow } from "../../src/wasm/rows.ts";

type Strided = "x" | "y" | `d${0 | 1 | 2 | 3 | 4 | 5}` | `s${0 | 1 | 2 | 3 | 4 | 5}` | "offset" | "begin" | "end";

/** A task is an element of y. A row that is contiguous in x is copied by vectors, any other row element by element. */
export const copy = {
  tasks: ({ d0, d1, d2, d3, d4, d5 }: Record<`d${0 | 1 | 2 | 3 | 4 | 5}`, number>) => d0 * d1 * d2 * d3 * d4 * d5,
  emit(f: WasmFunction, { x, y, offset, begin, end, ...of }: Locals<Strided>): void {
    const { d5: columns, s5: stride } = of, source = f.i32.at(x, offset);
    const outer = [[of.d4, of.s4], [of.d3, of.s3], [of.d2, of.s2], [of.d1, of.s1]];
    forEachRow(f, { begin, end, columns }, (row, from, to) => {
      let rest = row, start = source;
      for (const [size, stride] of outer) {
        start = f.i32.at(start, f.i32.mul(f.i32.rem(rest, size), stride));
        rest = f.i32.div(rest, size);
      }
      start = f.i32.at(start, f.i32.mul(rest, of.s0));
      const yRow = f.i32.at(y, f.i32.mul(row, columns));
      f.when(
        f.i32.eq(stride, 1),
        () => f.forEach(from, to, (at, v) => v.store(yRow, at, v.load(start, at))),
        () => void f.loop(from, to, 1, (at) => f.i32.store(yRow, at, f.i32.loadAt(start, f.i32.mul(at, stride)))),
      );
    });
  },
};

/** A task is an element of x. */
export const place = {
  tasks: ({ outer, length, inner }: Record<"outer" | "length" | "inner", number>) => outer * length * inner,
  emit(
    f: WasmFunction,
    { x, y, length, axis, inner, start, begin, end }: Locals<
      "x" | "y" | "length" | "axis" | "inner" | "start" | "begin" | "end"
    >,
  ): void {
    const columns = f.i32.mul(length, inner);
    forEachRow(f, { begin, end, columns }, (o, from, to) => {
      const xRow = f.i32.at(x, f.i32.mul(o, columns));
      const yRow = f.i32.at(y, f.i32.mul(f.i32.add(f.i32.mul(o, axis), start), inner));
      f.forEach(from, to, (at, v) => v.store(yRow, at, v.load(xRow, at)));
    });
  },
};
