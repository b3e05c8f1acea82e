/**
 * Computes the rewards, advantages and returns of a sampled text's tokens from a score of the whole text: a penalty for
 * the distance from the reference policy, generalised advantage estimation, and whitening. The host computes them in
 * f64, because an iteration has thousands of numbers, not millions.
 *
 * Stiennon et al. 2020, "Learning to summarize from human feedback", arXiv:2009.01325; Schulman et al. 2016,
 * "High-dimensional continuous control using generalized advantage estimation", arXiv:1506.02438; John Schulman,
 * "Approximating KL divergence", http://joschu.net/blog/kl-approx.html.
 */

/** Estimators of the KL to the reference policy at a sampled token: k1 = log π − log π_ref, k3 = exp(−k1) − 1 + k1. */
export type KlEstimator = "k1" | "k3";

/** A sampled text of n tokens: its log-probabilities, values and score. */
export interface ScoredText {
  /** log π of each of the n tokens, under the policy that sampled them. */
  readonly logprobs: ArrayLike<number>;
  /** log π_ref of each token. */ readonly reference: ArrayLike<number>;
  /**
   * The value before each token, n numbers. If the score is added one position after the end, n + 1 numbers: the last
   * one is the value after the last token.
   */
  readonly values: ArrayLike<number>;
  /** The score of the whole text. */ readonly score: number;
}

/** Options of {@linkcode returnsOf}. Defaults are TRL's. */
export interface ReturnOptions {
  /** The penalty per nat of KL to the reference. Default: 0.05. */ readonly klCoef?: number;
  /** The estimator of KL. Default: k1. */ readonly klEstimator?: KlEstimator;
  /** γ, the discount of rewards per token. Default: 1. */ readonly gamma?: number;
  /** λ of the advantages: 0 relies on the values, 1 on the rewards. Default: 0.95. */ readonly lambda?: number;
  /** Whether to scale rewards to standard deviation 1 without changing their mean. Default: false. */
  readonly whitenRewards?: boolean;
  /** Whether to scale advantages to mean 0 and standard deviation 1. Default: true. */
  readonly whitenAdvantages?: boolean;
}

/** The numbers that an update learns from, for a text of n tokens. */
export interface Returns {
  /** KL to the reference at each of the n tokens, in nats. */ readonly kl: Float64Array;
  /** The reward at each value's position. */ readonly rewards: Float64Array;
  /** The advantage of each of the n tokens. */ readonly advantages: Float64Array;
  /** The targets of the values: advantages before whitening, plus values. */
  readonly returns: Float64Array;
}

/** Estimates the KL to the reference policy at each sampled token, in nats. */
export function tokenKl(
  logprobs: ArrayLike<number>,
  reference: ArrayLike<number>,
  estimator: KlEstimator = "k1",
): Float64Array {
  return Float64Array.from({ length: logprobs.length }, (_, i) => {
    const k1 = logprobs[i] - reference[i];
    return estimator === "k1" ? k1 : Math.exp(-k1) - 1 + k1;
  });
}

/**
 * Computes generalised advantages, from a text's last position to its first: δ_t = r_t + γ V_{t+1} − V_t and
 * A_t = δ_t + γ λ A_{t+1}, where V and A are 0 after the end. The returns are A + V.
 */
export function generalizedAdvantages(
  rewards: ArrayLike<number>,
  values: ArrayLike<number>,
  { gamma = 1, lambda = 0.95 }: Pick<ReturnOptions, "gamma" | "lambda"> = {},
): Float64Array {
  const advantages = new Float64Array(values.length);
  for (let t = values.length - 1, next = 0, later = 0; t >= 0; t--) {
    later = rewards[t] + gamma * next - values[t] + gamma * lambda * later;
    advantages[t] = later;
    next = values[t];
  }
  return advantages;
}

/**
 * Scales the numbers of all lists together to standard deviation 1: (x − mean) / √(variance + 1e-8), with the sample
 * variance (divisor n − 1). A single number becomes 0, or is unchanged if the mean is added back.
 *
 * @param shiftMean whether the mean becomes 0 (the default) or is added back
 */
export function whiten(
  lists: readonly Float64Array[],
  { shiftMean = true }: { readonly shiftMean?: boolean } = {},
): Float64Array[] {
  const sum = (f: (x: number) => number) => lists.reduce((all, list) => list.reduce((part, x) => part + f(x), all), 0);
  const count = sum(() => 1), mean = sum((x) => x) / count;
  const variance = sum((x) => (x - mean) ** 2) / Math.max(1, count - 1), scale = 1 / Math.sqrt(variance + 1e-8);
  return lists.map((list) => list.map((x) => (x - mean) * scale + (shiftMean ? 0 : mean)));
}

/**
 * Computes rewards, advantages and returns of the texts of an iteration. The reward of each token is −klCoef · KL. The
 * score is added to the reward at the last position: the last token's position or the one after it. Whitening is over
 * all texts together.
 *
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { returnsOf } from "./returns.ts";
 *
 * const text = { logprobs: [-1, -0.5, -0.25], reference: [-1.2, -0.4, -0.25], values: [0.1, 0.2, 0.3, 0.4], score: 2 };
 * const [{ rewards, returns }] = returnsOf([text]);
 * assertAlmostEquals(rewards[0], -0.05 * 0.2, 1e-12); // KL is 0.2 nats
 * assertAlmostEquals(returns[3], 2, 1e-12); // after the last token, the score is the only reward
 * ```
 */
export function returnsOf(texts: readonly ScoredText[], options: ReturnOptions = {}): Returns[] {
  const { klCoef = 0.05, klEstimator, whitenRewards = false, whitenAdvantages = true } = options;
  const kl = texts.map(({ logprobs, reference }) => tokenKl(logprobs, reference, klEstimator));
  const plain = texts.map(({ values, score }, i) => {
    const rewards = new Float64Array(values.length);
    for (const [t, away] of kl[i].entries()) rewards[t] = -klCoef * away;
    rewards[values.length - 1] += score;
    return rewards;
  });
  const rewards = whitenRewards ? whiten(plain, { shiftMean: false }) : plain;
  const advantages = texts.map(({ values }, i) => generalizedAdvantages(rewards[i], values, options));
  const ofTokens = advantages.map((list, i) => list.subarray(0, kl[i].length));
  const final = whitenAdvantages ? whiten(ofTokens) : ofTokens;
  return texts.map(({ values }, i) => ({
    kl: kl[i],
    rewards: rewards[i],
    advantages: final[i],
    returns: advantages[i].map((advantage, t) => advantage + values[t]),
  }));
}

/** The settings of an adaptive KL penalty, {@linkcode adaptedKlCoef}. */
export interface AdaptiveKlOptions {
  /** The current coefficient. */ readonly klCoef: number;
  /** The desired KL per text, in nats. */ readonly target: number;
  /** The number of texts in which the coefficient changes by the relative error of KL, clipped to ±20 %. */
  readonly horizon: number;
}

/**
 * Computes the next coefficient of an adaptive KL penalty: coef · (1 + e · texts / horizon), where e = KL / target − 1,
 * clipped to ±0.2 (Ziegler et al. 2019, "Fine-tuning language models from human preferences", arXiv:1909.08593, section
 * 2.2).
 *
 * @param kl the mean KL per text in the last iteration, in nats
 * @param texts the number of texts in the last iteration
 */
export function adaptedKlCoef(
  { klCoef, target, horizon }: AdaptiveKlOptions,
  { kl, texts }: { readonly kl: number; readonly texts: number },
): number {
  return klCoef * (1 + Math.min(0.2, Math.max(-0.2, kl / target - 1)) * texts / horizon);
}
