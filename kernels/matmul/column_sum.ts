import type { CpuPhase } from "../../src/kernel.ts";
import type { Locals } from "../../src/wasm/assembler.ts";

/** Columns are the tasks; each adds up its rows from the first to the last. */
export const columnSum: CpuPhase<Record<"rows" | "N", number>, Locals<"x" | "sum" | "rows" | "N" | "begin" | "end">> = {
  tasks: ({ N }) => N,
  emit(f, { x, sum, rows, N, begin, end }) {
    f.forEach(begin, end, (n, v) => {
      const total = v.accumulator(), element = f.i32.at(x, n), stride = f.i32.shl(N, 2);
      f.loop(0, rows, 1, () => {
        v.assign(total, v.add(total, v.loadFrom(element, 0)));
        f.i32.advance(element, stride);
      });
      v.accumulate(sum, n, total);
    });
  },
};
