/**
 * The next token of each row: one of the vocabulary's V entries drawn by softmax(logits / temperature), the noise brought by the
 * caller. Row b has a temperature and a topK of its own, and row first + b, modulo their number, of the noise.
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
  reads: {
    logits: f32("B", "V"),
    noise: f32("drawn", "V"),
    first: i32(1),
    temperature: f32("B"),
    /** How many entries may be drawn (ties with the last of them included); 0 for all. */
    topK: i32("B"),
  },
  writes: { ids: i32("B") },
  reference({ logits, noise, first, temperature, topK, ids }, { B, V, drawn }) {
    for (let b = 0; b < B; b++) {
      const greedy = temperature[b] === 0, k = topK[b], own = ((first[0] >>> 0) + b) % drawn * V;
      const x = Array.from(logits.subarray(b * V, (b + 1) * V), (logit) => greedy ? logit : logit / temperature[b]);
      const descending = x.toSorted((a, b) => b - a), least = k > 0 && k < V ? descending[k - 1] : -Infinity;
      let best = -Infinity;
      ids[b] = Number.isFinite(descending[0]) && !x.some(Number.isNaN) ? 0 : -1;
      if (ids[b] < 0) continue;
      for (let i = 0; i < V; i++) {
        if (x[i] < least) continue;
        const share = greedy ? x[i] : Math.exp(x[i] - descending[0]) / noise[own + i];
        if (share > best) best = share, ids[b] = i;
      }
    }
  },
  cpu: { tasks: ({ B }) => B, work: ({ B, V }) => 20 * B * V, workspace: ({ B, V }) => B * V, emit: wasm.sample },
  gpu: { source, entry: "sample", workgroups: ({ B }) => B },
});
