/**
 * y = op(a, b), element by element, for every op with two inputs, whether called by users or needed for gradients.
 *
 * a and b have as many rows as y, or a single row that is repeated; likewise for columns. This covers equal shapes, a
 * scalar, one row for all rows (bias) and one number per row. For other shapes the op expands its inputs first (see
 * ops/broadcast.ts).
 */
import { f32, kernel, withLines } from "../../src/kernel.ts";
import source from "./binary.wgsl.ts";
import { binaryWasm, type LanesOf } from "./wasm.ts";

/**
 * Declares a kernel for one op. Whoever launches it passes y, because neither input alone determines the shape of y.
 */
function declare(name: string, op: (a: number, b: number) => number, lanes: LanesOf, wgsl: string) {
  return kernel({
    name,
    reads: { a: f32("aRows", "aColumns"), b: f32("bRows", "bColumns") },
    writes: { y: f32("rows", "columns") },
    reference({ a, b, y }, { rows, columns, aRows, aColumns, bRows, bColumns }) {
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          const left = (i % aRows) * aColumns + j % aColumns, right = (i % bRows) * bColumns + j % bColumns;
          y[i * columns + j] = op(a[left], b[right]);
        }
      }
    },
    cpu: binaryWasm(lanes),
    gpu: {
      get source() {
        return withLines(source, { op: `fn op(a: f32, b: f32) -> f32 { return ${wgsl}; }` });
      },
      entry: "binary",
      workgroups: ({ rows, columns }) => Math.ceil(rows * columns / 256),
    },
  });
}

export type BinaryKernel = ReturnType<typeof declare>;

export const add = declare("add", (a, b) => a + b, (v, a, b) => v.add(a, b), "a + b");
export const sub = declare("sub", (a, b) => a - b, (v, a, b) => v.sub(a, b), "a - b");
export const mul = declare("mul", (a, b) => a * b, (v, a, b) => v.mul(a, b), "a * b");
export const div = declare("div", (a, b) => a / b, (v, a, b) => v.div(a, b), "a / b");

/** The greater input; NaN if either is NaN. */
export const maximum = declare(
  "maximum",
  Math.max,
  (v, a, b) => v.select(v.ne(b, b), b, v.max(a, b)),
  "select(max(a, b), a + b, is_nan(a) || is_nan(b))",
);
/** The share of maximum's gradient that goes to a: 1, or 0.5 if a = b, or 0 if b is greater. */
export const maximumShare = declare(
  "maximum_share",
  (a, b) => a < b ? 0 : a === b ? 0.5 : 1,
  (v, a, b, f) => v.andNot(v.select(v.eq(a, b), f.splat(0.5), f.splat(1)), v.lt(a, b)),
  "select(select(select(1.0, 0.5, a == b), 0.0, a < b), 1.0, is_nan(a) || is_nan(b))",
);
/** 1 if both are equal or both are NaN, else 0. */
export const equal = declare(
  "equal",
  (a, b) => a === b || (Number.isNaN(a) && Number.isNaN(b)) ? 1 : 0,
  (v, a, b, f) => v.and(v.or(v.eq(a, b), v.and(v.ne(a, a), v.ne(b, b))), f.splat(1)),
  "select(0.0, 1.0, select(a == b, is_nan(a) && is_nan(b), is_nan(a) || is_nan(b)))",
);

/** dx of y = √x, computed from dy and y. */
export const sqrtBackward = declare(
  "sqrt_backward",
  (dy, y) => dy / (2 * y),
  (v, dy, y) => v.div(dy, v.add(y, y)),
  "a / (2.0 * b)",
);
/** dx of y = tanh(x), computed from dy and y. */
export const tanhBackward = declare(
  "tanh_backward",
  (dy, y) => dy * (1 - y * y),
  (v, dy, y, f) => v.mul(dy, v.nmadd(y, y, f.splat(1))),
  "a * (1.0 - b * b)",
);
