/**
 * Attention to cached keys and values. One pass takes tokens from any number of texts:
 *
 *     y = Σ softmax(q · k / √width) · v   over the keys k and values v of the token's slot, up to its own position
 *
 * The cache has one slot per text, and S places per slot. The keys and values of one head are stored contiguously, in
 * the order in which a query reads them, because sequential reads are fast. Token n is written to place `position[n]`
 * of slot `slot[n]`. The keys and values of all tokens of the pass are written before attention starts, and attention
 * reads every key from the cache. So a token's result does not depend, to the bit, on the other tokens of the pass, or
 * on how a prompt was split into passes. Places after a token's own may hold anything. In a bf16 cache, keys and values
 * are rounded to nearest when they are written; queries and all arithmetic are f32.
 *
 * Slots and positions are read on the device. A slot number outside the cache, such as −1, marks an idle token, which
 * yields zeros and writes nothing. A position outside the slot is clamped into it. So nothing outside the cache is
 * touched. Two tokens must not have the same place: which of them would be stored is undefined.
 */
import { bf16ToF32, f32ToBf16 } from "../../src/half.ts";
import { f32, half, i32, kernel } from "../../src/kernel.ts";
import source from "./attention_cached.wgsl.ts";
import copySource from "./attention_copy.wgsl.ts";
import { append, attend, copy } from "./wasm_cached.ts";

type Sizes = Record<"N" | "heads" | "S" | "width", number>;

const attending = {
  tasks: ({ N, heads }: Sizes) => N * heads,
  work: ({ N, heads, S, width }: Sizes) => N * heads * S * (width / 4 + 2),
  emit: attend,
};
const together = [
  { tasks: ({ N }: Sizes) => N, work: ({ N, heads, width }: Sizes) => 2 * N * heads * width, emit: append },
  attending,
];
/** With one token, each head writes its own part of the key and the value, so no thread has to wait for another. */
const alone = [attending];

export const attentionCached = kernel({
  name: "attention_cached",
  reads: { qkv: f32("N", 3, "heads", "width"), slot: i32("N"), position: i32("N") },
  updates: { cache: half("slots", "heads", "S", 2, "width") },
  writes: { y: f32("N", "heads", "width") },

  reference({ qkv, slot, position, cache, y }, { N, slots, S, heads, width }, _, layouts) {
    const C = heads * width, idle = (n: number) => slot[n] < 0 || slot[n] >= slots;
    const last = (n: number) => Math.min(Math.max(position[n], 0), S - 1);
    const row = (slot: number, head: number, place: number, part: number) =>
      (((slot * heads + head) * S + place) * 2 + part) * width;
    const stored = layouts.cache?.dtype === "bf16" ? bf16ToF32(f32ToBf16(Float32Array.from(qkv))) : qkv;
    for (let n = 0; n < N; n++) {
      for (let h = 0; h < heads && !idle(n); h++) {
        for (const part of [0, 1]) {
          const from = (3 * n + 1 + part) * C + h * width;
          cache.set(stored.subarray(from, from + width), row(slot[n], h, last(n), part));
        }
      }
    }
    y.fill(0);
    for (let n = 0; n < N; n++) {
      if (idle(n)) continue;
      for (let h = 0; h < heads; h++) {
        const query = 3 * n * C + h * width, scores: number[] = [];
        for (let s = 0; s <= last(n); s++) {
          let dot = 0;
          for (let c = 0; c < width; c++) dot += qkv[query + c] * cache[row(slot[n], h, s, 0) + c];
          scores.push(dot / Math.sqrt(width));
        }
        const max = Math.max(...scores), weights = scores.map((score) => Math.exp(score - max));
        const sum = weights.reduce((a, b) => a + b);
        for (let c = 0; c < width; c++) {
          const weighed = weights.reduce((total, weight, s) => total + weight * cache[row(slot[n], h, s, 1) + c], 0);
          y[n * C + h * width + c] = weighed / sum;
        }
      }
    }
  },
  cpu: ({ N }) => N === 1 ? alone : together,
  gpu: [
    {
      source,
      file: "attention_cached.wgsl.ts",
      entry: "attention_cached_append",
      workgroups: ({ N, heads, width }) => Math.ceil(N * 2 * heads * width / 64),
    },
    { source, entry: "attention_cached", workgroups: ({ N, heads }) => N * heads },
  ],
});

/**
 * Copies the first count[i] places of slot from[i] to slot to[i], so that the common beginning of two texts is computed
 * only once. A slot must not be both read and written. Slots outside the cache copy nothing. A count above S is taken
 * as S.
 */
export const attentionCopy = kernel({
  name: "attention_copy",
  reads: { from: i32("n"), to: i32("n"), count: i32("n") },
  updates: { cache: half("slots", "heads", "S", 2, "width") },
  reference({ from, to, count, cache }, { n, slots, S, heads, width }) {
    const size = S * 2 * width;
    for (let i = 0; i < n; i++) {
      if ([from[i], to[i]].some((slot) => slot < 0 || slot >= slots)) continue;
      const length = Math.min(Math.max(count[i], 0), S) * (size / S);
      for (let h = 0; h < heads; h++) {
        const [target, source] = [to[i], from[i]].map((slot) => (slot * heads + h) * size);
        cache.copyWithin(target, source, source + length);
      }
    }
  },
  cpu: { tasks: ({ n, heads }) => n * heads, work: ({ n, S, heads, width }) => n * S * 2 * heads * width, emit: copy },
  gpu: {
    source: copySource,
    entry: "attention_copy",
    workgroups: ({ n, S, heads, width }) => Math.ceil(n * S * 2 * heads * width / 256),
  },
});
