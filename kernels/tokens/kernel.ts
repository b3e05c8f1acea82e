/**
 * What decoding does to token ids without the host: a ring of the latest tokens, where token number n lies at n mod S, and a
 * counter of them all.
 */
import { i32, kernel } from "../../src/kernel.ts";
import advanceSource from "./advance.wgsl.ts";
import appendSource from "./append.wgsl.ts";
import latestSource from "./latest.wgsl.ts";
import * as wasm from "./wasm.ts";

/** counter += by, wrapping at 32 bits, of each of n counters. */
export const advance = kernel({
  name: "advance",
  reads: {},
  updates: { counter: i32("n") },
  params: { by: "i32" },
  reference: ({ counter }, _, { by }) => counter.forEach((count, i) => counter[i] = count + by),
  cpu: { tasks: () => 1, emit: wasm.advance },
  gpu: { source: advanceSource, entry: "advance", workgroups: ({ n }) => Math.ceil(n / 64) },
});

/** ring[b, count mod S] = ids[b], then count += 1. */
export const append = kernel({
  name: "append",
  reads: { ids: i32("B") },
  updates: { ring: i32("B", "S"), count: i32(1) },
  reference({ ids, ring, count }, { B, S }) {
    for (let b = 0; b < B; b++) ring[b * S + count[0] % S] = ids[b];
    count[0]++;
  },
  cpu: { tasks: () => 1, emit: wasm.append },
  gpu: { source: appendSource, entry: "append", workgroups: () => 1 },
});

/** ids[b, t] = ring[b, (count − T + t) mod S]: the last T tokens, where there are so many. */
export const latest = kernel({
  name: "latest",
  reads: { ring: i32("B", "S"), count: i32(1) },
  writes: { ids: i32("B", "T") },
  reference({ ring, count, ids }, { B, S, T }) {
    for (let b = 0; b < B; b++) {
      for (let t = 0; t < T; t++) ids[b * T + t] = ring[b * S + Math.max(count[0] - T + t, 0) % S];
    }
  },
  cpu: { tasks: () => 1, emit: wasm.latest },
  gpu: { source: latestSource, entry: "latest", workgroups: ({ B, T }) => Math.ceil(B * T / 64) },
});
