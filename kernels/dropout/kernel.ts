/**
 * Dropout (Srivastava et al. 2014): y = x · (keep ? gain : 0) with gain = 1 / (1 − p). Backward is the same kernel on dy.
 *
 * No mask is stored. Element i draws word i mod 4 of Philox (see src/random/philox.ts) with the counter (⌊i / 4⌋,
 * stream, offset, 0) and the key (seed, 0). It is dropped if the word's upper 24 bits are below threshold = ⌈p · 2²⁴⌉.
 * So elements are dropped with probability p, and all devices drop exactly the same elements.
 */
import { f32, i32, kernel } from "../../src/kernel.ts";
import { philox } from "../../src/random/philox.ts";
import source from "./dropout.wgsl.ts";
import * as wasm from "./wasm.ts";

/** Parameters of dropout, which attention's kernels also take. */
export const dropoutParams = { seed: "i32", stream: "i32", threshold: "i32", gain: "f32" } as const;

/** The factor of element i: 0 or gain. */
export function dropoutFactor(
  i: number,
  offset: number,
  { seed, stream, threshold, gain }: Record<keyof typeof dropoutParams, number>,
): number {
  const word = philox([i >>> 2, stream, offset, 0], [seed, 0])[i & 3];
  return word >>> 8 >= threshold ? gain : 0;
}

export const dropout = kernel({
  name: "dropout",
  reads: { x: f32("n"), offset: i32(1) },
  writes: { y: f32("n") },
  params: dropoutParams,
  reference({ x, offset, y }, { n }, params) {
    for (let i = 0; i < n; i++) y[i] = x[i] * dropoutFactor(i, offset[0], params);
  },
  cpu: { tasks: ({ n }) => Math.ceil(n / wasm.GROUP), work: ({ n }) => 4 * n, emit: wasm.dropout },
  gpu: { source, entry: "dropout", workgroups: ({ n }) => Math.ceil(n / 1024) },
});
