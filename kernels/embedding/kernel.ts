/**
 * Rows of a table by their numbers: y[i] = weight[ids[i]]; backward dweight[v] += Σ over i with ids[i] = v of dy[i], in the
 * order of i. The table may be kept in bf16; then there is no backward.
 *
 * The op refuses ids outside the table where the host wrote them; others are taken for the last row, so that no kernel
 * reaches outside a storage.
 */
import { f32, i32, kernel, weight } from "../../src/kernel.ts";
import backward from "./embedding_backward.wgsl.ts";
import forward from "./embedding_forward.wgsl.ts";
import * as wasm from "./wasm.ts";

const clamp = (id: number, V: number) => Math.min(id >>> 0, V - 1);

export const embeddingForward = kernel({
  name: "embedding_forward",
  reads: { ids: i32("n"), weight: weight("V", "C") },
  writes: { y: f32("n", "C") },
  reference({ ids, weight, y }, { n, V, C }) {
    for (let i = 0; i < n; i++) {
      for (let c = 0; c < C; c++) y[i * C + c] = weight[clamp(ids[i], V) * C + c];
    }
  },
  cpu: { tasks: ({ n }) => n, work: ({ n, C }) => n * C, emit: wasm.embeddingForward },
  gpu: { source: forward, entry: "embedding_forward", workgroups: ({ n, C }) => Math.ceil(n * C / 1024) },
});

export const embeddingBackward = kernel({
  name: "embedding_backward",
  reads: { ids: i32("n"), dy: f32("n", "C"), weight: f32("V", "C") }, // of weight only the shape
  updates: { dweight: f32("V", "C") },
  reference({ ids, dy, dweight }, { n, V, C }) {
    for (let i = 0; i < n; i++) {
      for (let c = 0; c < C; c++) dweight[clamp(ids[i], V) * C + c] += dy[i * C + c];
    }
  },
  cpu: () => wasm.embeddingBackward,
  gpu: [
    {
      source: backward,
      file: "embedding_backward.wgsl.ts",
      entry: "embedding_backward_clear",
      workgroups: ({ V, C }) => Math.ceil(V * C / 1024),
    },
    {
      source: backward,
      file: "embedding_backward.wgsl.ts",
      entry: "embedding_backward_links",
      workgroups: ({ n }) => Math.ceil(n / 64),
      workspace: ({ n }) => 2 * n,
    },
    { source: backward, entry: "embedding_backward", workgroups: ({ n }) => n },
  ],
});
