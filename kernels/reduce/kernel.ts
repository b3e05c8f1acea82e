/**
 * Reductions over one axis: x (outer, axis, inner) → y (outer, inner). Any axis, or several neighbouring axes, of any
 * tensor can be written in this form.
 */
import { f32, kernel, withLines } from "../../src/kernel.ts";
import maxBackwardSource from "./max_backward.wgsl.ts";
import reduceSource from "./reduce.wgsl.ts";
import * as wasm from "./wasm.ts";

type Sizes = Record<"outer" | "axis" | "inner", number>;

/**
 * Calls `body` for each line, which is the elements along the axis at one (outer, inner). Passes a function that
 * returns the index in x of the line's element i, and the line's number.
 */
export function lines({ outer, axis, inner }: Sizes, body: (at: (i: number) => number, line: number) => void): void {
  for (let line = 0; line < outer * inner; line++) {
    const first = Math.floor(line / inner) * axis * inner + line % inner;
    body((i) => first + i * inner, line);
  }
}

/** How reduce.wgsl.ts divides its work: the number of lines per workgroup, and of chunks per line. */
function cut({ axis, inner }: Sizes) {
  const powerOfTwoFrom = (n: number) => 2 ** Math.ceil(Math.log2(n));
  const lines = Math.min(Math.max(powerOfTwoFrom(inner), 256 / powerOfTwoFrom(axis), 1), 64);
  return { lines, chunks: Math.ceil(axis * lines / (64 * 256)) };
}
const passes = (lines: Record<string, string> = {}) =>
  [
    {
      entry: "reduce_chunks",
      file: "reduce.wgsl.ts",
      workgroups: (sizes: Sizes) => cut(sizes).chunks * Math.ceil(sizes.outer * sizes.inner / cut(sizes).lines),
      workspace: (sizes: Sizes) => sizes.outer * cut(sizes).chunks * sizes.inner,
    },
    {
      entry: "reduce_rest",
      file: "reduce.wgsl.ts",
      workgroups: ({ outer, inner }: Sizes) => Math.ceil(outer * inner / 64),
    },
  ].map((pass) => ({
    ...pass,
    get source() {
      return withLines(reduceSource, lines);
    },
  }));

/** y += Σ over the axis of x / divisor. */
export const sum = kernel({
  name: "sum",
  reads: { x: f32("outer", "axis", "inner") },
  updates: { y: f32("outer", "inner") },
  params: { divisor: "f32" },
  reference({ x, y }, sizes, { divisor }) {
    lines(sizes, (at, line) => {
      let total = 0;
      for (let k = 0; k < sizes.axis; k++) total += x[at(k)];
      y[line] += total / divisor;
    });
  },
  cpu: wasm.sum,
  gpu: passes(),
});

/** y = the greatest element along the axis; NaN if any is NaN. */
export const max = kernel({
  name: "max",
  reads: { x: f32("outer", "axis", "inner") },
  writes: { y: f32("outer", "inner") },
  reference({ x, y }, sizes) {
    lines(sizes, (at, line) => {
      y[line] = -Infinity;
      for (let k = 0; k < sizes.axis; k++) y[line] = Math.max(y[line], x[at(k)]);
    });
  },
  cpu: wasm.max,
  gpu: passes({
    Params: "struct Params { outer: u32, axis: u32, inner: u32 }",
    empty: "fn empty(x: f32) -> f32 { return x; }", // any element of the line, since max(x, x) = x
    combine: "fn combine(a: f32, b: f32) -> f32 { return select(max(a, b), a + b, is_nan(a) || is_nan(b)); }",
    finish: "fn finish(y: f32, result: f32) -> f32 { return result; }",
  }),
});

/** dx += dy at the first place along the axis whose element is y; NaN counts as equal to NaN. */
export const maxBackward = kernel({
  name: "max_backward",
  reads: { x: f32("outer", "axis", "inner"), y: f32("outer", "inner"), dy: f32("outer", "inner") },
  updates: { dx: f32("outer", "axis", "inner") },
  reference({ x, y, dy, dx }, sizes) {
    lines(sizes, (at, line) => {
      let first = 0;
      while (x[at(first)] !== y[line] && !(Number.isNaN(x[at(first)]) && Number.isNaN(y[line]))) first++;
      dx[at(first)] += dy[line];
    });
  },
  cpu: { tasks: ({ outer, inner }) => outer * inner, emit: wasm.maxBackward },
  gpu: {
    source: maxBackwardSource,
    entry: "max_backward",
    workgroups: ({ outer, inner }) => Math.ceil(outer * inner / 64),
  },
});
