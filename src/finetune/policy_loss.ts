/**
 * The clipped loss of a policy π on texts that an earlier version of it, π_old, has written (Schulman et al. 2017,
 * arXiv:1707.06347), in the variants of TRL's GRPOTrainer and RLOOTrainer. With the ratio r = exp(log π − log π_old) of
 * a token or a whole text, and the advantage A,
 *
 *     term = −min(min(r, δ) · A, clip(r, 1 − ε_low, 1 + ε_high) · A) + β · KL
 *     KL = exp(q) − q − 1, q = log π_ref − log π; times r if its bias is corrected
 *     loss = Σ share · term
 *
 * The shares are the weights of an average over tokens or texts. The KL estimate ("k3", Schulman 2020) has the right
 * mean but not the right gradient. The factor r corrects the gradient; while π equals π_old, r is 1 and does not change
 * the value.
 */
import { equal, maximumShare } from "../../kernels/binary/kernel.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary } from "../ops/broadcast.ts";
import { add, concat, exp, max, maximum, mul, neg, reshape, sub, sum } from "../ops/mod.ts";

/**
 * What a ratio is computed for: each token; or each text, from the mean (GSPO, arXiv:2507.18071) or the sum (RLOO) of
 * log π − log π_old over its tokens.
 */
export type RatioLevel = "token" | "mean" | "sum";

/** Options of {@linkcode policyLoss}. */
export interface PolicyLossOptions {
  /** What ratios are computed for. Default: token. */ readonly level?: RatioLevel;
  /** ε_low. */ readonly epsilon: number;
  /** ε_high. */ readonly epsilonHigh: number;
  /** δ. Default: no bound. */ readonly delta?: number;
  /** β; default 0. */ readonly beta?: number;
  /** Whether KL is multiplied by r. Default: false. */ readonly biasCorrection?: boolean;
}

/**
 * The inputs of {@linkcode policyLoss}. Each is f32 (B, T) unless another shape is given, with values at the positions
 * that predict a completion's tokens and 0 elsewhere.
 */
export interface PolicyLossInputs {
  /** log π, with a gradient. */ readonly logprobs: Tensor;
  /** log π_old. Default: log π itself, so that r is 1. */ readonly old?: Tensor;
  /** log π_ref, if β is not 0. */ readonly reference?: Tensor;
  /** −A, (B, 1). */ readonly against: Tensor;
  /** The weight of each term in the loss; (B, 1) if terms are averaged over texts. */ readonly share: Tensor;
  /** Needed for ratios of texts: the weight of each token, 1 / n for a mean over n tokens, 1 for a sum. */
  readonly pool?: Tensor;
  /** The weight of each token in the mean KL. */ readonly mean: Tensor;
  /** The weight of each ratio in its text's share of ratios clipped at 1 − ε_low; (B, 1) for ratios of texts. */
  readonly low: Tensor;
  /** The weight of each ratio in its text's share of ratios clipped at 1 + ε_high; (B, 1) for ratios of texts. */
  readonly high: Tensor;
  /** The weight of each text in the means of these shares, (B, 1); 0 for a text without ratios. */ readonly texts:
    Tensor;
}

/** TRL's names of the shares of clipped ratios: at 1 − ε_low, at 1 + ε_high, and at either. */
export const CLIP_MEASURES = [
  ...["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "clip_ratio/low_min"],
  "clip_ratio/high_max",
];

/**
 * Computes the loss, (); the {@linkcode CLIP_MEASURES}, (5): means, minimum and maximum over the texts; and with a
 * reference the mean KL over tokens, (1).
 */
export function policyLoss(
  { logprobs, old, reference, against, share, pool, mean, low, high, texts }: PolicyLossInputs,
  { level = "token", epsilon, epsilonHigh, delta, beta = 0, biasCorrection = false }: PolicyLossOptions,
): { readonly loss: Tensor; readonly clipped: Tensor; readonly kl?: Tensor } {
  const { device } = logprobs, number = (value: number) => device.tensor([value], []);
  using scope = device.scope();
  const least = (x: Tensor, most: number) => neg(maximum(neg(x), number(-most)));
  const difference = sub(logprobs, old ?? logprobs.alias(logprobs.shape));
  const ratio = exp(level === "token" ? difference : sum(mul(difference, pool!), { axis: 1, keepDim: true }));
  const near = least(maximum(ratio, number(1 - epsilon)), 1 + epsilonHigh);
  let term = maximum(mul(delta === undefined ? ratio : least(ratio, delta), against), mul(near, against));
  let kl: Tensor | undefined;
  if (reference && beta !== 0) {
    const q = sub(reference, logprobs);
    kl = sub(sub(exp(q), q), number(1));
    if (biasCorrection) kl = mul(kl, ratio);
    term = add(term, mul(kl, number(beta)));
  }
  const loss = sum(mul(term, share));
  const [clipped, divergence] = noGrad(() => {
    const shares = (count: Tensor, above: Tensor, below: Tensor) =>
      sum(mul(count, binary(maximumShare, above, below)), { axis: 1, keepDim: true }); // (B, 1)
    const lows = shares(low, number(1 - epsilon), ratio), highs = shares(high, ratio, number(1 + epsilonHigh));
    const [below, above] = [lows, highs].map((one) => sum(mul(one, texts)));
    const without = binary(equal, texts, number(0)); // 1 for a text without ratios, which cannot be the minimum
    const measures = [below, above, add(below, above), neg(max(neg(add(lows, without)))), max(highs)];
    const clipped = concat(measures.map((one) => reshape(one, [1])), { axis: 0 });
    return [clipped, kl && reshape(sum(mul(kl, mean)), [1])];
  });
  return { loss: scope.keep(loss), clipped: scope.keep(clipped), kl: divergence && scope.keep(divergence) };
}
