/**
 * The log-probability of each row's target in rows of logits, at a temperature (scale is 1 / temperature), and
 * statistics of the row's distribution p = softmax(scale · logits) that the same pass yields:
 *
 *     lse = log Σ exp(scale · logits),   logprob = scale · logits[target] − lse
 *     entropy = −Σ p log p,   mean = Σ logits / V,   hit = 1 if the target's logit is the greatest, else 0
 *
 * Rows whose target is `ignore` have 0 in all of these except `lse`. A target that is neither a valid class nor
 * `ignore` counts as the last class, as in cross_entropy. Backward computes p again from the logits and `lse`.
 */
import { f32, i32, kernel } from "../../src/kernel.ts";
import backwardSource from "./logprobs_backward.wgsl.ts";
import forwardSource from "./logprobs_forward.wgsl.ts";
import * as wasm from "./wasm.ts";

const classOf = (target: number, V: number) => Math.min(target >>> 0, V - 1);

export const logprobsForward = kernel({
  name: "logprobs_forward",
  reads: { logits: f32("rows", "V"), targets: i32("rows") },
  writes: { logprob: f32("rows"), lse: f32("rows"), entropy: f32("rows"), mean: f32("rows"), hit: f32("rows") },
  params: { ignore: "i32", scale: "f32" },

  reference({ logits, targets, logprob, lse, entropy, mean, hit }, { rows, V }, { ignore, scale }) {
    for (let row = 0; row < rows; row++) {
      let max = -Infinity, sum = 0, weighted = 0, total = 0;
      for (let c = 0; c < V; c++) max = Math.max(max, logits[row * V + c]);
      for (let c = 0; c < V; c++) {
        const x = scale * (logits[row * V + c] - max), e = Math.exp(x);
        sum += e;
        weighted += e * x;
        total += logits[row * V + c];
      }
      const counts = Number(targets[row] !== ignore), target = logits[row * V + classOf(targets[row], V)];
      lse[row] = scale * max + Math.log(sum);
      logprob[row] = counts * (scale * (target - max) - Math.log(sum));
      entropy[row] = counts * (Math.log(sum) - weighted / sum);
      mean[row] = counts * total / V;
      hit[row] = counts * Number(target === max);
    }
  },
  cpu: { tasks: ({ rows }) => rows, emit: wasm.forward },
  gpu: { source: forwardSource, entry: "logprobs_forward", workgroups: ({ rows }) => rows },
});

/**
 * dlogits += ([class is the target] − exp(scale · logits − lse)) · scale · dlogprob; rows whose target is `ignore` get
 * no gradient.
 */
export const logprobsBackward = kernel({
  name: "logprobs_backward",
  reads: { dlogprob: f32("rows"), logits: f32("rows", "V"), targets: i32("rows"), lse: f32("rows") },
  updates: { dlogits: f32("rows", "V") },
  params: { ignore: "i32", scale: "f32" },

  reference({ dlogprob, logits, targets, lse, dlogits }, { rows, V }, { ignore, scale }) {
    for (let row = 0; row < rows; row++) {
      if (targets[row] === ignore) continue;
      const target = classOf(targets[row], V), share = scale * dlogprob[row];
      for (let c = 0; c < V; c++) {
        dlogits[row * V + c] += ((c === target ? 1 : 0) - Math.exp(scale * logits[row * V + c] - lse[row])) * share;
      }
    }
  },
  cpu: { tasks: ({ rows }) => rows, emit: wasm.backward },
  gpu: { source: backwardSource, entry: "logprobs_backward", workgroups: ({ rows }) => rows },
});
