/** y[b, j, i] = x[b, i, j], y perhaps in panels: what `copy` does too, but by tiles, for along columns each element has a cache line of its own. */
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
