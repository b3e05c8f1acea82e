/**
 * The next token: one of the vocabulary's V entries drawn by softmax(logits / temperature), the noise brought by the caller.
 *
 *     x = logits / temperature,  x < the topK-th greatest: out,  id = argmax exp(x − max x) / noise
 *
 * With noise drawn from the exponential distribution, that is how `torch.multinomial` draws one sample: the least of
 * independent exponential times with rates p is at entry i with probability pᵢ / Σ p. What the probabilities sum to does not
 * change where the greatest quotient is. Temperature 0 takes the greatest logit. Of equals the first wins. A row with NaN, or
 * whose maximum is infinite, gives −1: no choice is right there, and the caller sees that the model is damaged.
 */
import { f32, i32, kernel } from "../../src/kernel.ts";
import source from "./sample.wgsl.ts";
import * as wasm from "./wasm.ts";

export const sample = kernel({
  name: "sample",
  reads: { logits: f32("B", "V"), noise: f32("B", "V"), temperature: f32(1) },
  writes: { ids: i32("B") },
  /** How many entries may be drawn (ties with the last of them included); 0 for all. */
  params: { topK: "i32" },
  reference({ logits, noise, temperature, ids }, { B, V }, { topK }) {
    const greedy = temperature[0] === 0;
    for (let b = 0; b < B; b++) {
      const x = Array.from(logits.subarray(b * V, (b + 1) * V), (logit) => greedy ? logit : logit / temperature[0]);
      const descending = x.toSorted((a, b) => b - a), least = topK > 0 && topK < V ? descending[topK - 1] : -Infinity;
      let best = -Infinity;
      ids[b] = Number.isFinite(descending[0]) && !x.some(Number.isNaN) ? 0 : -1;
      if (ids[b] < 0) continue;
      for (let i = 0; i < V; i++) {
        if (x[i] < least) continue;
        const share = greedy ? x[i] : Math.exp(x[i] - descending[0]) / noise[b * V + i];
        if (share > best) best = share, ids[b] = i;
      }
    }
  },
  cpu: { tasks: ({ B }) => B, work: ({ B, V }) => 20 * B * V, workspace: ({ B, V }) => B * V, emit: wasm.sample },
  gpu: { source, entry: "sample", workgroups: ({ B }) => B },
});
