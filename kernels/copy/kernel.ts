/**
 * Kernels that move elements, floats or integers. `copy` reads x at any strides and writes y contiguously: a
 * transposition permutes the strides, a repeated axis has stride 0, a slice starts at an offset. `place` writes x into
 * a part of one axis of y, as a concatenation does.
 */
import { type DType, f32, i32, kernel, type Operand, withLines } from "../../src/kernel.ts";
import copySource from "./copy.wgsl.ts";
import placeSource from "./place.wgsl.ts";
import * as wasm from "./wasm.ts";

/** How the kernels of one element type are named and declared. */
interface Element<T extends DType> {
  readonly dtype: T;
  /** Appended to the kernel's name. */
  readonly suffix: string;
  readonly of: <const A extends (string | number)[]>(...shape: A) => Operand<A[number], T, false>;
}
const floats: Element<"f32"> = { dtype: "f32", suffix: "", of: f32 };
const integers: Element<"i32"> = { dtype: "i32", suffix: "_i32", of: i32 };

/** The shader for elements of this type. */
const moving = (source: string, element: DType) => withLines(source, { Element: `alias Element = ${element};` });

/** Number of axes of `copy`. */
export const COPY_RANK = 6;

/** y[i0, …, i5] = x[offset + Σ i·s]. The caller passes y and makes sure that every index is inside x. */
const declareCopy = <T extends DType>({ dtype, suffix, of }: Element<T>) =>
  kernel({
    name: `copy${suffix}`,
    reads: { x: of("n") },
    writes: { y: of("d0", "d1", "d2", "d3", "d4", "d5") },
    params: { offset: "i32", s0: "i32", s1: "i32", s2: "i32", s3: "i32", s4: "i32", s5: "i32" },
    reference({ x, y }, { d0, d1, d2, d3, d4, d5 }, { offset, s0, s1, s2, s3, s4, s5 }) {
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
    gpu: {
      get source() {
        return moving(copySource, dtype);
      },
      entry: "copy",
      workgroups: ({ d0, d1, d2, d3, d4, d5 }) => Math.ceil(d0 * d1 * d2 * d3 * d4 * d5 / 256),
    },
  });

/**
 * y[:, start + i, :] = x[:, i, :]; the rest of y stays. The caller passes y and makes sure that start + length is
 * within its axis.
 */
const declarePlace = <T extends DType>({ dtype, suffix, of }: Element<T>) =>
  kernel({
    name: `place${suffix}`,
    reads: { x: of("outer", "length", "inner") },
    writes: { y: of("outer", "axis", "inner") },
    params: { start: "i32" },
    reference({ x, y }, { outer, length, axis, inner }, { start }) {
      for (let o = 0; o < outer; o++) {
        for (let i = 0; i < length * inner; i++) y[(o * axis + start) * inner + i] = x[o * length * inner + i];
      }
    },
    cpu: wasm.place,
    gpu: {
      get source() {
        return moving(placeSource, dtype);
      },
      entry: "place",
      workgroups: ({ outer, length, inner }) => Math.ceil(outer * length * inner / 256),
    },
  });

export const copy = { f32: declareCopy(floats), i32: declareCopy(integers) };
export const place = { f32: declarePlace(floats), i32: declarePlace(integers) };
