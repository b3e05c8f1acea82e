/**
 * Reductions over one axis: x (outer, axis, inner) → y (outer, inner). Any axis of any tensor is of this form, and so are
 * neighbouring axes together.
 */
import { f32, kernel } from "../../src/kernel.ts";
import * as wasm from "./wasm.ts";

/** y += Σ over the axis of x / divisor. */
export const sum = kernel({
  name: "sum",
  reads: { x: f32("outer", "axis", "inner") },
  updates: { y: f32("outer", "inner") },
  params: { divisor: "f32" },
  reference({ x, y }, { outer, axis, inner }, { divisor }) {
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let total = 0;
        for (let k = 0; k < axis; k++) total += x[(o * axis + k) * inner + i];
        y[o * inner + i] += total / divisor;
      }
    }
  },
  cpu: wasm.sum,
});

/** y = the greatest along the axis; NaN where there is one. */
export const max = kernel({
  name: "max",
  reads: { x: f32("outer", "axis", "inner") },
  writes: { y: f32("outer", "inner") },
  reference({ x, y }, { outer, axis, inner }) {
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        let most = -Infinity;
        for (let k = 0; k < axis; k++) most = Math.max(most, x[(o * axis + k) * inner + i]);
        y[o * inner + i] = most;
      }
    }
  },
  cpu: wasm.max,
});

/** dx += dy at the first place along the axis that holds y; NaN holds NaN. */
export const maxBackward = kernel({
  name: "max_backward",
  reads: { x: f32("outer", "axis", "inner"), y: f32("outer", "inner"), dy: f32("outer", "inner") },
  updates: { dx: f32("outer", "axis", "inner") },
  reference({ x, y, dy, dx }, { outer, axis, inner }) {
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < inner; i++) {
        const place = (k: number) => (o * axis + k) * inner + i, most = y[o * inner + i];
        let first = 0;
        while (x[place(first)] !== most && !(Number.isNaN(x[place(first)]) && Number.isNaN(most))) first++;
        dx[place(first)] += dy[o * inner + i];
      }
    }
  },
  cpu: { tasks: ({ outer, inner }) => outer * inner, emit: wasm.maxBackward },
});
