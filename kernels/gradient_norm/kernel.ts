/**
 * norm = √Σ g² over the gradients of all parameters, which are stored one after another. Squares are summed over blocks
 * of fixed length, then the blocks' sums in f64.
 */
import { f32, kernel } from "../../src/kernel.ts";
import source from "./gradient_norm.wgsl.ts";
import * as wasm from "./wasm.ts";

export const gradientNorm = kernel({
  name: "gradient_norm",
  reads: { gradient: f32("n") },
  writes: { norm: f32(1) },
  reference({ gradient, norm }, { n }) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += gradient[i] ** 2;
    norm[0] = Math.sqrt(sum);
  },
  cpu: () => wasm.gradientNorm,
  gpu: [
    {
      source,
      file: "gradient_norm.wgsl.ts",
      entry: "gradient_norm_blocks",
      workgroups: ({ n }) => Math.ceil(n / 4096),
      workspace: ({ n }) => Math.ceil(n / 4096),
    },
    { source, entry: "gradient_norm", workgroups: () => 1 },
  ],
});
