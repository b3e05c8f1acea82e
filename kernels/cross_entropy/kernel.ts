/**
 * Mean cross-entropy of rows of logits and target classes. Rows whose target is `ignore` do not count:
 *
 *     lse = log Σ exp(logits),   loss = Σ (lse − logits[target]) / count
 *
 * If no row counts, the loss is NaN, as in PyTorch. Softmax is never stored: backward computes it again from the logits
 * and `lse`. A target that is neither a valid class nor `ignore` counts as the last class. The op rejects such targets
 * if the host wrote them; the kernel only makes sure that it never reads outside the row.
 */
import { f32, i32, kernel } from "../../src/kernel.ts";
import backwardSource from "./cross_entropy_backward.wgsl.ts";
import forwardSource from "./cross_entropy_forward.wgsl.ts";
import * as wasm from "./wasm.ts";

const classOf = (target: number, V: number) => Math.min(target >>> 0, V - 1);

export const crossEntropyForward = kernel({
  name: "cross_entropy_forward",
  reads: { logits: f32("rows", "V"), targets: i32("rows") },
  writes: { loss: f32(), count: f32(), lse: f32("rows") },
  params: { ignore: "i32" },

  reference({ logits, targets, loss, count, lse }, { rows, V }, { ignore }) {
    let total = 0, counted = 0;
    for (let row = 0; row < rows; row++) {
      let max = -Infinity, sum = 0;
      for (let c = 0; c < V; c++) max = Math.max(max, logits[row * V + c]);
      for (let c = 0; c < V; c++) sum += Math.exp(logits[row * V + c] - max);
      lse[row] = max + Math.log(sum);
      if (targets[row] === ignore) continue;
      total += max - logits[row * V + classOf(targets[row], V)] + Math.log(sum);
      counted++;
    }
    loss[0] = total / counted;
    count[0] = counted;
  },
  cpu: () => wasm.forward,
  gpu: [{
    source: forwardSource,
    entry: "cross_entropy_forward",
    workgroups: ({ rows }) => rows,
    workspace: ({ rows }) => rows,
  }, {
    source: forwardSource,
    file: "cross_entropy_forward.wgsl.ts",
    entry: "cross_entropy_mean",
    workgroups: () => 1,
  }],
});

/**
 * dlogits += (exp(logits − lse) − [class is the target]) · dloss / count; rows whose target is `ignore` get no
 * gradient.
 */
export const crossEntropyBackward = kernel({
  name: "cross_entropy_backward",
  reads: { dloss: f32(), logits: f32("rows", "V"), targets: i32("rows"), lse: f32("rows"), count: f32() },
  updates: { dlogits: f32("rows", "V") },
  params: { ignore: "i32" },

  reference({ dloss, logits, targets, lse, count, dlogits }, { rows, V }, { ignore }) {
    for (let row = 0; row < rows; row++) {
      if (targets[row] === ignore) continue;
      const target = classOf(targets[row], V), share = dloss[0] / count[0];
      for (let c = 0; c < V; c++) {
        dlogits[row * V + c] += (Math.exp(logits[row * V + c] - lse[row]) - (c === target ? 1 : 0)) * share;
      }
    }
  },
  cpu: { tasks: ({ rows }) => rows, emit: wasm.backward },
  gpu: { source: backwardSource, entry: "cross_entropy_backward", workgroups: ({ rows }) => rows },
});
