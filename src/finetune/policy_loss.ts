/**
 * The clipped loss of a policy whose texts were written by itself some updates ago (Schulman et al. 2017, arXiv:1707.06347), in the
 * forms of TRL's GRPOTrainer and RLOOTrainer. With r = exp(log π − log π_old) of a token, or of a whole text, and its advantage A,
 *
 *     term = −min(min(r, δ) · A, clip(r, 1 − ε_low, 1 + ε_high) · A) + β · KL
 *     KL = exp(q) − q − 1, q = log π_ref − log π; times r where its bias is corrected
 *     loss = Σ share · term
 *
 * The shares say what is averaged over. The KL estimate alone ("k3", Schulman 2020) has the right mean, but not the right gradient;
 * the factor r, which is 1 in value where π is π_old, gives it that.
 */
import { maximumShare } from "../../kernels/binary/kernel.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { binary } from "../ops/broadcast.ts";
import { add, concat, exp, maximum, mul, neg, reshape, sub, sum } from "../ops/mod.ts";

/** What the ratio is of: each token; a text, the mean of its tokens (GSPO, arXiv:2507.18071), or their sum (RLOO). */
export type RatioLevel = "token" | "mean" | "sum";

/** Of the loss. */
export interface PolicyLossOptions {
  /** Default: token. */ readonly level?: RatioLevel;
  /** ε_low. */ readonly epsilon: number;
  /** ε_high. */ readonly epsilonHigh: number;
  /** δ; default: none. */ readonly delta?: number;
  /** β; default 0. */ readonly beta?: number;
  /** Whether KL is multiplied by r. */ readonly biasCorrection?: boolean;
}

/** All f32 (B, T), at the tokens that predict a completion's, and 0 elsewhere, where nothing else is said. */
export interface PolicyLossInputs {
  /** log π, with a gradient. */ readonly logprobs: Tensor;
  /** log π_old; default: log π itself, so that r is 1. */ readonly old?: Tensor;
  /** log π_ref, where β is not 0. */ readonly reference?: Tensor;
  /** −A, (B, 1). */ readonly against: Tensor;
  /** What a term counts; (B, 1) where terms are of texts. */ readonly share: Tensor;
  /** For ratios of texts: 1 / n of a text's n tokens for their mean, 1 for their sum. */ readonly pool?: Tensor;
  /** What a token counts in means over tokens. */ readonly mean: Tensor;
  /** What a ratio below 1 − ε_low counts, and one above 1 + ε_high, in the shares that are clipped; (B, 1) for texts. */
  readonly low: Tensor;
  readonly high: Tensor;
}

/** The names of {@linkcode policyLoss}'s numbers. */
export const CLIP_MEASURES = ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"] as const;

/**
 * The loss, (), and besides how much is clipped, (3), as {@linkcode CLIP_MEASURES} names it, and the mean of KL over tokens, (1), where
 * there is a reference.
 */
export function policyLoss(
  { logprobs, old, reference, against, share, pool, mean, low, high }: PolicyLossInputs,
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
    const shareOf = (count: Tensor, above: Tensor, below: Tensor) =>
      reshape(sum(mul(count, binary(maximumShare, above, below))), [1]);
    const both = [shareOf(low, number(1 - epsilon), ratio), shareOf(high, ratio, number(1 + epsilonHigh))];
    return [concat([...both, add(both[0], both[1])], { axis: 0 }), kl && reshape(sum(mul(kl, mean)), [1])];
  });
  return { loss: scope.keep(loss), clipped: scope.keep(clipped), kl: divergence && scope.keep(divergence) };
}
