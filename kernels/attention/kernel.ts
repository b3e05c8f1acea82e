/**
 * Causal self-attention as in FlashAttention (Dao et al. 2022, arXiv:2205.14135). Queries, keys and values are packed
 * in one tensor, as nanoGPT's c_attn returns them. For each head, query t and keys s ≤ t:
 *
 *     S = q · k / √width,   sum = Σ exp(S − max),   P = exp(S − max) / sum,   y = Σ dropout(P) · v
 *
 * The T×T matrices S and P are only ever computed in small blocks. Backward computes them again from q, k, `max` and
 * `sum`. One number, log Σ exp(S), would be enough for that, but at large scores its rounding would cost P three
 * digits.
 *
 * If a row holds several documents, `starts` has, for each token, the place in the row at which its document begins,
 * and query t sees the keys starts[t] ≤ s ≤ t. Starts must not decrease along a row, so that blocks of keys that no
 * query of a block sees can be skipped. A start is clamped to between 0 and t, so whatever its value, nothing outside
 * the row is read.
 *
 * Dropout is applied to P. Element i of the (B, heads, T, T₄) matrix, where T₄ is T rounded up to a multiple of 4, is
 * set to zero if the upper 24 bits of its Philox word are below `threshold` = ⌈p · 2²⁴⌉, else multiplied by `gain` = 1
 * / (1 − p).
 */
import { f32, type FloatArray, i32, kernel, optional } from "../../src/kernel.ts";
import { dropoutFactor, dropoutParams } from "../dropout/kernel.ts";
import backwardSource from "./attention_backward.wgsl.ts";
import forwardSource from "./attention_forward.wgsl.ts";
import { byTile } from "./blocks.ts";
import { byFours } from "./gpu.ts";
import { attentionBackward as backward } from "./wasm_backward.ts";
import { attentionForward as forward, CHUNK } from "./wasm_forward.ts";

const packed = f32("B", "T", 3, "heads", "width"), rows = f32("B", "T", "heads", "width");
const perQuery = f32(2, "B", "heads", "T"), offset = optional(i32(1)), starts = optional(i32("B", "T"));

type Sizes = Record<"B" | "T" | "heads" | "width", number>;

/** On the GPU a workgroup owns 32 queries or keys, and 64 columns of their results. */
const workgroups = ({ B, T, heads, width }: Sizes) => B * heads * Math.ceil(T / 32) * Math.ceil(width / 64);

/** The factor of P, 0 or gain, for a head's number (b · heads + h), query and key. */
function factors({ T }: Sizes, offset: Int32Array | undefined, params: Record<keyof typeof dropoutParams, number>) {
  const T4 = Math.ceil(T / 4) * 4;
  return (head: number, t: number, s: number): number =>
    offset ? dropoutFactor((head * T + t) * T4 + s, offset[0], params) : 1;
}

/** The first key that a query of a head sees. */
const firstKeys = ({ T, heads }: Sizes, starts: Int32Array | undefined) => (head: number, t: number): number =>
  starts ? Math.min(Math.max(starts[Math.floor(head / heads) * T + t], 0), t) : 0;

/**
 * Returns two functions for the offsets of one head's rows: `at` for row t of q, k or v (part 0, 1 or 2) in (B, T, 3,
 * heads, width), and `row` for row t in (B, T, heads, width).
 */
function places({ T, heads, width }: Sizes, head: number) {
  const b = Math.floor(head / heads), h = head % heads;
  return {
    at: (part: 0 | 1 | 2, t: number) => (((b * T + t) * 3 + part) * heads + h) * width,
    row: (t: number) => ((b * T + t) * heads + h) * width,
  };
}

function dot(a: FloatArray, i: number, b: FloatArray, j: number, width: number): number {
  let sum = 0;
  for (let c = 0; c < width; c++) sum += a[i + c] * b[j + c];
  return sum;
}

/** y[j…] += factor · x[i…] */
function addTo(y: FloatArray, j: number, factor: number, x: FloatArray, i: number, width: number): void {
  for (let c = 0; c < width; c++) y[j + c] += factor * x[i + c];
}

/** Number of multiplications for the products of all queries with the keys that they see. */
const pairs = ({ B, T, heads, width }: Record<"B" | "T" | "heads" | "width", number>) =>
  B * heads * T * (T + 1) / 2 * width;

export const attentionForward = kernel({
  name: "attention_forward",
  reads: { qkv: packed, offset, starts },
  writes: { y: rows, statistics: perQuery }, // max, then sum
  params: dropoutParams,
  flops: (sizes) => 4 * pairs(sizes), // q · k, and the sum over v

  reference({ qkv, offset, starts, y, statistics }, sizes, params) {
    const { B, T, heads, width } = sizes, factor = factors(sizes, offset, params), root = Math.sqrt(width);
    const firstKey = firstKeys(sizes, starts), queries = B * heads * T;
    for (let head = 0; head < B * heads; head++) {
      const { at, row } = places(sizes, head);
      for (let t = 0; t < T; t++) {
        const first = firstKey(head, t), length = t + 1 - first;
        const scores = Array.from({ length }, (_, i) => dot(qkv, at(0, t), qkv, at(1, first + i), width) / root);
        const greatest = scores.reduce((a, b) => Math.max(a, b)), exps = scores.map((S) => Math.exp(S - greatest));
        const total = exps.reduce((a, b) => a + b);
        statistics[head * T + t] = greatest;
        statistics[queries + head * T + t] = total;
        y.fill(0, row(t), row(t) + width);
        exps.forEach((exp, i) =>
          addTo(y, row(t), exp / total * factor(head, t, first + i), qkv, at(2, first + i), width)
        );
      }
    }
  },
  cpu: byTile({
    tasks: ({ B, heads, T }) => B * heads * Math.ceil(T / CHUNK),
    work: ({ B, heads, T, width }) => B * heads * T * T * (width / 8 + 2),
  }, forward),
  gpu: byFours({ source: forwardSource, entry: "attention_forward", workgroups }, {
    qkv: "read",
    y: "write",
  }),
});

/**
 * With D = Σ dy · y of a query, and dP = dropout(dy · v):
 *
 *     dS = P · (dP − D) / √width,   dq += Σ dS · k,   dk += Σ dS · q,   dv += Σ dropout(P) · dy
 *
 * D equals Σ P · dP, which the derivative of softmax subtracts.
 */
export const attentionBackward = kernel({
  name: "attention_backward",
  reads: { dy: rows, qkv: packed, offset, starts, y: rows, statistics: perQuery },
  updates: { dqkv: packed },
  params: dropoutParams,
  flops: (sizes) => 10 * pairs(sizes), // q · k again, dy · v, and the sums dq, dk and dv

  reference({ dy, qkv, offset, starts, y, statistics, dqkv }, sizes, params) {
    const { B, T, heads, width } = sizes, factor = factors(sizes, offset, params), root = Math.sqrt(width);
    const firstKey = firstKeys(sizes, starts), queries = B * heads * T;
    for (let head = 0; head < B * heads; head++) {
      const { at, row } = places(sizes, head);
      for (let t = 0; t < T; t++) {
        const D = dot(dy, row(t), y, row(t), width), query = head * T + t;
        const greatest = statistics[query], total = statistics[queries + query];
        for (let s = firstKey(head, t); s <= t; s++) {
          const P = Math.exp(dot(qkv, at(0, t), qkv, at(1, s), width) / root - greatest) / total;
          const kept = factor(head, t, s), dP = kept * dot(dy, row(t), qkv, at(2, s), width), dS = P * (dP - D) / root;
          addTo(dqkv, at(0, t), dS, qkv, at(1, s), width);
          addTo(dqkv, at(1, s), dS, qkv, at(0, t), width);
          addTo(dqkv, at(2, s), P * kept, dy, row(t), width);
        }
      }
    }
  },
  cpu: byTile({
    tasks: ({ B, heads }) => B * heads,
    work: ({ B, heads, T, width }) => B * heads * T * T * (width / 4 + 2),
  }, backward),
  gpu: [
    { entry: "attention_backward_queries", workspace: ({ B, T, heads }: Sizes) => B * heads * T }, // D
    { entry: "attention_backward_keys" },
  ].flatMap((pass) =>
    byFours({ ...pass, source: backwardSource, file: "attention_backward.wgsl.ts", workgroups }, {
      dy: "read",
      qkv: "read",
      y: "read",
      dqkv: "add",
    })
  ),
});
