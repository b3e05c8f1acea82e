/**
 * Moving elements, of floats or integers. `copy` reads at any strides and writes one behind the other: a transposition
 * permutes the strides, a repeated axis has stride 0, a slice starts at an offset. `place` puts whole blocks into a part
 * of an axis: what a concatenation does.
 */
import { f32, i32, kernel, type NumberArray, withLines } from "../../src/kernel.ts";
import copySource from "./copy.wgsl.ts";
import placeSource from "./place.wgsl.ts";
import * as wasm from "./wasm.ts";

type Element = "f32" | "i32";

/** A shader that moves elements of this type. */
const moving = (source: string, element: Element) => withLines(source, { Element: `alias Element = ${element};` });

/** y[i0, …, i5] = x[offset + Σ i·s]. Reading inside x is the caller's to ensure; the caller brings y. */
const strided = {
  params: { offset: "i32", s0: "i32", s1: "i32", s2: "i32", s3: "i32", s4: "i32", s5: "i32" },
  reference(
    { x, y }: Record<"x" | "y", NumberArray>,
    { d0, d1, d2, d3, d4, d5 }: Record<"d0" | "d1" | "d2" | "d3" | "d4" | "d5", number>,
    { offset, s0, s1, s2, s3, s4, s5 }: Record<"offset" | "s0" | "s1" | "s2" | "s3" | "s4" | "s5", number>,
  ): void {
    const sizes = [d0, d1, d2, d3, d4, d5], strides = [s0, s1, s2, s3, s4, s5];
    for (let at = 0; at < y.length; at++) {
      let rest = at, from = offset;
      for (let axis = 5; axis >= 0; axis--) {
        from += (rest % sizes[axis]) * strides[axis];
        rest = Math.floor(rest / sizes[axis]);
      }
      y[at] = x[from];
    }
  },
  cpu: wasm.copy,
} as const;

const copyGpu = (element: Element) => ({
  source: moving(copySource, element),
  entry: "copy",
  workgroups: ({ d0, d1, d2, d3, d4, d5 }: Record<"d0" | "d1" | "d2" | "d3" | "d4" | "d5", number>) =>
    Math.ceil(d0 * d1 * d2 * d3 * d4 * d5 / 256),
});

/** How many axes `copy` has. */
export const COPY_RANK = 6;

export const copy = {
  f32: kernel({
    name: "copy",
    reads: { x: f32("n") },
    writes: { y: f32("d0", "d1", "d2", "d3", "d4", "d5") },
    gpu: copyGpu("f32"),
    ...strided,
  }),
  i32: kernel({
    name: "copy_i32",
    reads: { x: i32("n") },
    writes: { y: i32("d0", "d1", "d2", "d3", "d4", "d5") },
    gpu: copyGpu("i32"),
    ...strided,
  }),
};

/** y[:, start + i, :] = x[:, i, :]. The caller brings y, of which the rest stays, and keeps start + length within it. */
const placed = {
  params: { start: "i32" },
  reference(
    { x, y }: Record<"x" | "y", NumberArray>,
    { outer, length, axis, inner }: Record<"outer" | "length" | "axis" | "inner", number>,
    { start }: { start: number },
  ): void {
    for (let o = 0; o < outer; o++) {
      for (let i = 0; i < length * inner; i++) y[(o * axis + start) * inner + i] = x[o * length * inner + i];
    }
  },
  cpu: wasm.place,
} as const;

const placeGpu = (element: Element) => ({
  source: moving(placeSource, element),
  entry: "place",
  workgroups: ({ outer, length, inner }: Record<"outer" | "length" | "inner", number>) =>
    Math.ceil(outer * length * inner / 256),
});

export const place = {
  f32: kernel({
    name: "place",
    reads: { x: f32("outer", "length", "inner") },
    writes: { y: f32("outer", "axis", "inner") },
    gpu: placeGpu("f32"),
    ...placed,
  }),
  i32: kernel({
    name: "place_i32",
    reads: { x: i32("outer", "length", "inner") },
    writes: { y: i32("outer", "axis", "inner") },
    gpu: placeGpu("i32"),
    ...placed,
  }),
};
