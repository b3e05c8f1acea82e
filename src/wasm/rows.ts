/** Divides arrays of rows among threads. */
import type { I32Local, WasmFunction } from "./assembler.ts";

/**
 * Calls `body` for each row of a (rows, columns) array that has elements numbered `begin` to `end`, with the row's
 * number and the columns `from` and `to` between which these elements are. So a kernel's tasks can be elements instead
 * of rows.
 */
export function forEachRow(
  f: WasmFunction,
  { begin, end, columns }: Record<"begin" | "end" | "columns", I32Local>,
  body: (row: I32Local, from: I32Local, to: I32Local) => void,
): void {
  const after = f.i32.divUp(end, columns);
  f.loop(f.i32.div(begin, columns), after, 1, (row) => {
    const start = f.i32.mul(row, columns), stop = f.i32.add(start, columns);
    body(row, f.i32.sub(f.i32.max(begin, start), start), f.i32.sub(f.i32.min(end, stop), start));
  });
}
