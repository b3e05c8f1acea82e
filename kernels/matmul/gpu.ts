/** The GPU's matrix products: one shader, and the lines in which its forms differ. */
import source from "./matmul.wgsl" with { type: "text" };
import type { Form } from "./wasm.ts";

type Sizes = Record<"batch" | "M" | "N" | "K", number>;

/** Sizes in the order of the declaration, where an element lies in the last two axes, and whether those side by side differ in k. */
const FORMS = {
  NN: { sizes: "batch: u32, M: u32, K: u32, N: u32", a: "row * params.K + k", b: "k * params.N + column" },
  NT: { sizes: "batch: u32, M: u32, K: u32, N: u32", a: "row * params.K + k", b: "column * params.K + k" },
  TN: { sizes: "batch: u32, K: u32, M: u32, N: u32", a: "k * params.M + row", b: "k * params.N + column" },
};

const ADDED = `
@group(0) @binding(3) var<storage, read_write> c: array<f32>; // (batch, M, N)
override fresh_c: bool = false; // c holds garbage: write instead of adding
fn finish(c: f32, column: u32, value: f32) -> f32 { return select(c, 0.0, fresh_c) + value; }`;
const BIASED = `
@group(0) @binding(3) var<storage, read> bias: array<f32>; // (N)
@group(0) @binding(4) var<storage, read_write> c: array<f32>; // (batch, M, N)
fn finish(c: f32, column: u32, value: f32) -> f32 { return bias[column] + value; }`;

/** The product of a form; its tile has so many rows and columns. */
export function gpu(form: Form, { bias = false } = {}, tile = 64) {
  const { sizes, a, b } = FORMS[form];
  return {
    source: `${source}
const TILE = ${tile}u;
struct Params { ${sizes} }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>; // (batch, ${form === "TN" ? "K, M" : "M, K"})
@group(0) @binding(2) var<storage, read> b: array<f32>; // (batch, ${form === "NT" ? "N, K" : "K, N"})${
      bias ? BIASED : ADDED
    }
const A_ALONG_K = ${form !== "TN"};
const B_ALONG_K = ${form === "NT"};
fn a_place(row: u32, k: u32) -> u32 { return ${a}; }
fn b_place(k: u32, column: u32) -> u32 { return ${b}; }
`,
    entry: "matmul",
    workgroups: ({ batch, M, N }: Sizes) => batch * Math.ceil(M / tile) * Math.ceil(N / tile),
  };
}
