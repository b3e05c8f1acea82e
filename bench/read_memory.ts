/**
 * A kernel that measures how fast memory is read. It sums long rows. Each thread adds up six rows at once, because the
 * processor's prefetcher follows that number of streams; a core reads a single stream more slowly.
 */
import { f32, kernel } from "../src/kernel.ts";
import type { Locals, WasmFunction } from "../src/wasm/assembler.ts";

/** Rows that a thread reads at once. */
export const STREAMS = 6;

export const readMemory = kernel({
  name: "read_memory",
  reads: { values: f32("rows", "n") },
  writes: { sums: f32("rows") },
  reference({ values, sums }, { rows, n }) {
    for (let row = 0; row < rows; row++) {
      sums[row] = 0;
      for (let i = 0; i < n; i++) sums[row] += values[row * n + i];
    }
  },
  cpu: {
    tasks: ({ rows }) => rows / STREAMS,
    emit(f: WasmFunction, { values, sums, n, begin, end }: Locals<"values" | "sums" | "n" | "begin" | "end">) {
      f.loop(begin, end, 1, (task) => {
        const rows = Array.from({ length: STREAMS }, (_, i) => f.i32.add(f.i32.mul(task, STREAMS), i));
        const starts = rows.map((row) => f.i32.at(values, f.i32.mul(row, n)));
        f.reduce("add", STREAMS, n, (at, v) => starts.map((start) => v.load(start, at)))
          .forEach((sum, i) => f.f32.store(sums, rows[i], sum));
      });
    },
  },
});
