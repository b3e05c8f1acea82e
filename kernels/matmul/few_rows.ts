/** A product with a few rows of a (decoding): packing would not pay, for every element of b is used so rarely. */
import type { Phase } from "./wasm.ts";

/** Up to this many rows. */
export const MOST_ROWS = 4;

/** c += a · bᵀ with `rows` rows of a: the rows of b, which are the tasks, are read once, in place. */
export function fewRows(rows: number): Phase {
  return {
    tasks: ({ batch, N }) => batch * N,
    emit(f, { a, b, bias, c, N, K, begin, end }) {
      f.loop(begin, end, 1, (task) => {
        const batch = f.i32.div(task, N), column = f.i32.rem(task, N), bRow = f.i32.at(b, f.i32.mul(task, K));
        const first = f.i32.mul(batch, rows);
        const aRows = Array.from({ length: rows }, (_, m) => f.i32.at(a, f.i32.mul(f.i32.add(first, m), K)));
        const sums = f.reduce("add", rows, K, (k, v) => {
          const weight = v.load(bRow, k);
          return aRows.map((aRow) => v.mul(weight, v.load(aRow, k)));
        });
        sums.forEach((sum, m) => {
          const at = f.i32.add(f.i32.mul(f.i32.add(first, m), N), column);
          if (bias) f.f32.store(c, at, f.f32.add(sum, f.f32.loadAt(bias, column)));
          else f.f32.accumulate(c, at, sum);
        });
      });
    },
  };
}
