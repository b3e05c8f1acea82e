/**
 * Pairs of answers: how they are stored in rows and laid out in batches, and their log-probabilities under a policy.
 */
import { maximumShare } from "../../kernels/binary/kernel.ts";
import { paddedLengths, type TokenRows } from "../data/token_rows.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import { Breather } from "../loop/breather.ts";
import { binary } from "../ops/broadcast.ts";
import { add, concat, logSoftmax, maximum, reshape, sub, sum } from "../ops/mod.ts";
import { CapturedPasses, type ReferencePolicy, rowArrays, type ScoredRow, tokenLogprobs } from "./policy.ts";
import type { Splits } from "./row_task.ts";

/**
 * Pairs of answers. Row 2i holds the prompt and the preferred answer of pair i, row 2i + 1 the prompt and the rejected
 * answer. The tokens of the answers are marked as learned.
 */
export type PreferenceRows = Splits<TokenRows>;

/** The sizes of batches of pairs. */
export interface PairSizes {
  /** Pairs in a micro-batch. */ readonly batchSize: number;
  /** Maximum tokens in a prompt and its answer together, at most the model's block size. */ readonly maxLength: number;
}

/** @internal log π(answer) of each row, the sum over the answer's tokens: (rows). */
export const answerSums = (model: GPT, { tokens, targets }: Record<"tokens" | "targets", Tensor>): Tensor =>
  sum(tokenLogprobs(model, { tokens, targets }).logprobs, { axis: 1 });

/**
 * @internal The arrays of `batchSize` pairs, (2 · batchSize, T): first all preferred answers, then all rejected ones.
 */
export function pairArrays(
  rows: TokenRows,
  pairs: readonly number[],
  { maxLength, batchSize, vocabSize }: PairSizes & { readonly vocabSize: number },
): ReturnType<typeof rowArrays> {
  const half = (which: 0 | 1) =>
    Array.from({ length: batchSize }, (_, i): ScoredRow => {
      if (i >= pairs.length) return { ids: new Int32Array(0), from: 1 };
      const { ids, learned } = rows.row(2 * pairs[i] + which);
      return { ids, from: Math.max(1, learned.indexOf(1)) }; // nothing predicts the first token
    });
  return rowArrays([...half(0), ...half(1)], {
    lengths: paddedLengths(maxLength),
    batchSize: 2 * batchSize,
    vocabSize,
  });
}

/**
 * Computes the log-probabilities of the answers under a reference policy once. Updates can use them instead of running
 * the reference.
 *
 * @param options.batchSize pairs in a pass
 * @returns log π_ref(answer) for each row
 */
export async function referenceSums(
  reference: ReferencePolicy,
  rows: TokenRows,
  { batchSize, maxLength, signal, onProgress }: PairSizes & {
    readonly signal?: AbortSignal;
    readonly onProgress?: (pairs: number) => void;
  },
): Promise<Float32Array> {
  const { model } = reference, count = rows.length / 2, found = new Float32Array(rows.length);
  const order = Array.from({ length: count }, (_, pair) => pair), breather = new Breather();
  const longest = (pair: number) => Math.max(rows.lengthOf(2 * pair), rows.lengthOf(2 * pair + 1));
  order.sort((a, b) => longest(a) - longest(b));
  using passes = new CapturedPasses(
    model,
    ({ tokens, targets }) => reference.run((model) => answerSums(model, { tokens, targets })),
  );
  const options = { maxLength, batchSize: Math.min(batchSize, count), vocabSize: model.config.vocabSize };
  for (let at = 0; at < count; at += options.batchSize) {
    signal?.throwIfAborted();
    const pairs = order.slice(at, at + options.batchSize), sums = await passes.run(pairArrays(rows, pairs, options));
    for (const [i, pair] of pairs.entries()) {
      for (const which of [0, 1]) found[2 * pair + which] = sums[which * options.batchSize + i];
    }
    onProgress?.(at + pairs.length);
    await breather.breathe();
  }
  return found;
}

/** @internal log σ(x) and log σ(−x) of each element of x (N), which are the logarithms of softmax(x, 0): (N, 2). */
export function logSigmoids(x: Tensor): Tensor {
  const zeros = x.device.tensor(new Float32Array(x.size), [x.size, 1]);
  return logSoftmax(concat([reshape(x, [x.size, 1]), zeros], { axis: 1 }));
}

/** @internal 1 where a is greater than b, otherwise 0. */
export function greater(a: Tensor, b: Tensor): Tensor {
  const share = binary(maximumShare, a, b), [zero, one] = [0, 1].map((n) => a.device.tensor([n], []));
  return maximum(sub(add(share, share), one), zero); // a's share in max(a, b) is ½ if both are equal
}
