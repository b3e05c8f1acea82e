/** y[o, j, i] = x[o, index[o, j, i], i], like torch.gather. An index outside the axis is clamped to it. */
import { f32, i32, kernel } from "../../src/kernel.ts";
import gatherSource from "./gather.wgsl.ts";
import gatherBackwardSource from "./gather_backward.wgsl.ts";
import * as wasm from "./wasm.ts";

const clamp = (index: number, axis: number) => Math.min(Math.max(index, 0), axis - 1);

export const gather = kernel({
  name: "gather",
  reads: { x: f32("outer", "axis", "inner"), index: i32("outer", "count", "inner") },
  writes: { y: f32("outer", "count", "inner") },
  reference({ x, index, y }, { axis, count, inner }) {
    for (let at = 0; at < y.length; at++) {
      const o = Math.floor(at / (count * inner)), place = clamp(index[at], axis);
      y[at] = x[(o * axis + place) * inner + at % inner];
    }
  },
  cpu: { tasks: ({ outer, count, inner }) => outer * count * inner, emit: wasm.gather },
  gpu: {
    source: gatherSource,
    entry: "gather",
    workgroups: ({ outer, count, inner }) => Math.ceil(outer * count * inner / 256),
  },
});

/**
 * dx[o, index[o, j, i], i] += dy[o, j, i], in the order of j. The caller passes dx. A task owns one (o, i), so no two
 * tasks write the same element.
 */
export const gatherBackward = kernel({
  name: "gather_backward",
  reads: { dy: f32("outer", "count", "inner"), index: i32("outer", "count", "inner") },
  updates: { dx: f32("outer", "axis", "inner") },
  reference({ dy, index, dx }, { axis, count, inner }) {
    for (let at = 0; at < dy.length; at++) {
      const o = Math.floor(at / (count * inner)), place = clamp(index[at], axis);
      dx[(o * axis + place) * inner + at % inner] += dy[at];
    }
  },
  cpu: { tasks: ({ outer, inner }) => outer * inner, emit: wasm.gatherBackward },
  gpu: {
    source: gatherBackwardSource,
    entry: "gather_backward",
    workgroups: ({ outer, inner }) => Math.ceil(outer * inner / 64),
  },
});
