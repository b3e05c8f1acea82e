import type { Locals, WasmFunction } from "../../src/wasm/assembler.ts";
import { intoPanels } from "../panels/wasm.ts";

/** Rows and columns of a tile: the floats of a cache line. */
const SIDE = 16;

/** The phase that writes y in panels. */
export const panels = [intoPanels("columns", "rows", "panel")];

/**
 * A task is a tile. It is copied to scratch memory row by row and transposed from there, because in scratch memory its
 * rows do not compete for the same places in the cache.
 */
const transpose = {
  tasks: ({ batch, rows, columns }: Record<"batch" | "rows" | "columns", number>) =>
    batch * Math.ceil(rows / SIDE) * Math.ceil(columns / SIDE),
  emit(f: WasmFunction, { x, y, rows, columns, begin, end }: Locals<"x" | "y" | "rows" | "columns" | "begin" | "end">) {
    const tile = f.scratch(0), [down, across] = [rows, columns].map((n) => f.i32.divUp(n, SIDE));
    f.loop(begin, end, 1, (task) => {
      const i = f.i32.mul(f.i32.rem(f.i32.div(task, across), down), SIDE), j = f.i32.mul(f.i32.rem(task, across), SIDE);
      const height = f.i32.min(f.i32.sub(rows, i), SIDE), width = f.i32.min(f.i32.sub(columns, j), SIDE);
      const first = f.i32.mul(f.i32.div(task, f.i32.mul(down, across)), f.i32.mul(rows, columns));
      const source = f.i32.at(x, f.i32.add(first, f.i32.add(f.i32.mul(i, columns), j)));
      const target = f.i32.at(y, f.i32.add(first, f.i32.add(f.i32.mul(j, rows), i)));
      f.loop(0, height, 1, (row) => {
        const from = f.i32.at(source, f.i32.mul(row, columns)), to = f.i32.at(tile, f.i32.mul(row, SIDE));
        f.forEach(0, width, (at, v) => v.store(to, at, v.load(from, at)));
      });
      f.loop(0, width, 1, (column) => {
        const from = f.i32.at(tile, column), to = f.i32.at(target, f.i32.mul(column, rows));
        const move = (count: number) => (row: ReturnType<typeof f.i32.copy>) => {
          const [source, target] = [f.i32.at(from, f.i32.shl(row, 4)), f.i32.at(to, row)];
          const values = Array.from({ length: count }, (_, k) => f.f32.load(source, k * SIDE));
          values.forEach((value, k) => f.f32.store(target, k, value));
        };
        f.loop(f.loop(0, height, 4, move(4)), height, 1, move(1));
      });
    });
  },
};
export const tiles = [transpose];
