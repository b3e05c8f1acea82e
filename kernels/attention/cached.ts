/**
 * Attention for decoding: keys and values of earlier tokens stand in a cache, and only the new ones are computed:
 *
 *     y = Σ softmax(q · k / √width) · v   over the keys k and values v of the cache, up to the query's own
 *
 * Writes the T new keys and values into the cache's rows from `position` on; query t then attends to the cache's rows up to
 * position + t. Rows behind that may hold anything. The position is read on the device and moved into 0 to S − T, so that
 * nothing outside the cache is ever touched.
 */
import { f32, i32, kernel } from "../../src/kernel.ts";
import source from "./attention_cached.wgsl.ts";
import { attentionCached as cached } from "./wasm_cached.ts";

export const attentionCached = kernel({
  name: "attention_cached",
  reads: { qkv: f32("B", "T", 3, "heads", "width"), position: i32(1) },
  updates: { cache: f32("B", "S", 2, "heads", "width") },
  writes: { y: f32("B", "T", "heads", "width") },

  reference({ qkv, position, cache, y }, { B, T, S, heads, width }) {
    const first = Math.min(Math.max(position[0], 0), S - T);
    for (let b = 0; b < B; b++) {
      for (let h = 0; h < heads; h++) {
        const fresh = (part: number, t: number) => (((b * T + t) * 3 + part) * heads + h) * width;
        const cached = (part: number, s: number) => (((b * S + s) * 2 + part) * heads + h) * width;
        for (let t = 0; t < T; t++) {
          for (const part of [0, 1]) {
            const from = fresh(part + 1, t);
            cache.set(qkv.subarray(from, from + width), cached(part, first + t));
          }
        }
        for (let t = 0; t < T; t++) {
          const scores: number[] = [], row = ((b * T + t) * heads + h) * width;
          for (let s = 0; s <= first + t; s++) {
            let dot = 0;
            for (let c = 0; c < width; c++) dot += qkv[fresh(0, t) + c] * cache[cached(0, s) + c];
            scores.push(dot / Math.sqrt(width));
          }
          const max = Math.max(...scores), weights = scores.map((score) => Math.exp(score - max));
          const sum = weights.reduce((a, b) => a + b);
          for (let c = 0; c < width; c++) {
            y[row + c] = weights.reduce((total, weight, s) => total + weight * cache[cached(1, s) + c], 0) / sum;
          }
        }
      }
    }
  },
  cpu: {
    tasks: ({ B, heads }) => B * heads,
    workspace: ({ B, heads, S }) => B * heads * S,
    work: ({ B, heads, T, S, width }) => B * heads * T * S * (width / 4 + 2),
    emit: cached,
  },
  gpu: [
    {
      source,
      file: "attention_cached.wgsl.ts",
      entry: "attention_cached_append",
      workgroups: ({ B, T, heads, width }) => Math.ceil(B * T * 2 * heads * width / 64),
    },
    { source, entry: "attention_cached", workgroups: ({ B, T, heads }) => B * T * heads },
  ],
});
