/**
 * y[b, j, i] = x[b, i, j]; y may be in panels. `copy` can transpose, too, but this kernel does it by tiles, which is
 * faster: along a column each element is in a different cache line.
 */
import { f32, kernel, laid } from "../../src/kernel.ts";
import source from "./transpose.wgsl.ts";
import * as wasm from "./wasm.ts";

export const transpose = kernel({
  name: "transpose",
  reads: { x: f32("batch", "rows", "columns") },
  writes: { y: laid("batch", "columns", "rows") },
  reference({ x, y }, { batch, rows, columns }) {
    for (let b = 0; b < batch; b++) {
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) y[(b * columns + j) * rows + i] = x[(b * rows + i) * columns + j];
      }
    }
  },
  cpu: (_, { y }) => y?.panels ? wasm.panels : wasm.tiles,
  gpu: {
    source,
    entry: "transpose",
    workgroups: ({ batch, rows, columns }) => batch * Math.ceil(rows / 32) * Math.ceil(columns / 32),
  },
});
