/**
 * Looks up rows of a table by id: y[i] = weight[ids[i]]. Backward: dweight[v] += Σ over i with ids[i] = v of dy[i], in
 * the order of i. The table may be stored in bf16 or q8_0; then there is no backward.
 *
 * The op rejects ids outside the table if the host wrote them. Ids computed on the device are not checked: outside the
 * table they count as the last row, so that no kernel reads outside a storage.
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
  reads: { ids: i32("n"), dy: f32("n", "C"), weight: f32("V", "C") }, // only the shape of weight is used
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
