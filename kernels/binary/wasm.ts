import type { I32Local, Lanes, Locals, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { forEachRow } from "../../src/wasm/rows.ts";

export type LanesOf = (v: Lanes, a: Vector, b: Vector, f: WasmFunction) => Vector;
type Names = "a" | "b" | "y" | "aRows" | "aColumns" | "bRows" | "bColumns" | "columns" | "begin" | "end";

/** A task is an element of y. Each row runs one of three loops: a is a single number, b is, or neither. */
export const binaryWasm = (op: LanesOf) => ({
  tasks: ({ rows, columns }: { rows: number; columns: number }) => rows * columns,
  emit(f: WasmFunction, { a, b, y, aRows, aColumns, bRows, bColumns, begin, end, columns }: Locals<Names>): void {
    forEachRow(f, { begin, end, columns }, (row, from, to) => {
      const start = (pointer: I32Local, rows: I32Local, columns: I32Local) =>
        f.i32.at(pointer, f.i32.mul(f.i32.rem(row, rows), columns));
      const aRow = start(a, aRows, aColumns), bRow = start(b, bRows, bColumns);
      const yRow = f.i32.at(y, f.i32.mul(row, columns));
      const loop = (left: Vector | undefined, right: Vector | undefined) =>
        f.forEach(
          from,
          to,
          (at, v) => v.store(yRow, at, op(v, left ?? v.load(aRow, at), right ?? v.load(bRow, at), f)),
        );
      f.when(
        f.i32.ne(aColumns, columns),
        () => loop(f.splat(f.f32.load(aRow)), undefined),
        () =>
          f.when(
            f.i32.ne(bColumns, columns),
            () => loop(undefined, f.splat(f.f32.load(bRow))),
            () => loop(undefined, undefined),
          ),
      );
    });
  },
});
