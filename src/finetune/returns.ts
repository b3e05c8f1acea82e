/**
 * Rewards, advantages and returns of the tokens of a sampled text, from a score of the whole text: a penalty for leaving the
 * reference policy, generalised advantage estimation, whitening. Plain numbers in 64-bit floats on the host: an iteration has
 * thousands of them, not millions.
 *
 * Stiennon et al. 2020, "Learning to summarize from human feedback", arXiv:2009.01325; Schulman et al. 2016, "High-dimensional
 * continuous control using generalized advantage estimation", arXiv:1506.02438; John Schulman, "Approximating KL divergence",
 * http://joschu.net/blog/kl-approx.html.
 */

/** How far a text's tokens lead away from the reference policy: k1 = log π − log ref, k3 = exp(−k1) − 1 + k1. */
export type KlEstimator = "k1" | "k3";

/** One sampled text, with log-probabilities and values of its tokens, and its score. */
export interface ScoredText {
  /** log π of each of the n tokens that were sampled, under the policy that sampled them. */
  readonly logprobs: ArrayLike<number>;
  /** log ref of each. */ readonly reference: ArrayLike<number>;
  /**
   * What was expected before each token: n numbers; or n + 1, the last of them after the last token, where the score counts one
   * place after the end.
   */
  readonly values: ArrayLike<number>;
  /** Of the whole text. */ readonly score: number;
}

/** How {@linkcode returnsOf} works; the defaults are TRL's. */
export interface ReturnOptions {
  /** What a nat away from the reference costs; default 0.05. */ readonly klCoef?: number;
  /** Default k1. */ readonly klEstimator?: KlEstimator;
  /** Share of a reward that is left one token earlier; default 1. */ readonly gamma?: number;
  /** λ of the advantages: 0 trusts the values, 1 the rewards; default 0.95. */ readonly lambda?: number;
  /** Whether rewards are divided by their deviation, their mean left as it is; default false. */
  readonly whitenRewards?: boolean;
  /** Whether advantages have mean 0 and deviation 1; default true. */ readonly whitenAdvantages?: boolean;
}

/** What an update needs to know of a text. */
export interface Returns {
  /** How far each token led away from the reference, n numbers in nats. */ readonly kl: Float64Array;
  /** As many as values. */ readonly rewards: Float64Array;
  /** Of the n tokens. */ readonly advantages: Float64Array;
  /** What the values should have been, as many as values: advantages before whitening, plus values. */
  readonly returns: Float64Array;
}

/** How far each token leads away from the reference policy, in nats. */
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
 * Advantages of the places of one text, from its last to its first: δ_t = r_t + γ V_{t+1} − V_t, A_t = δ_t + γ λ A_{t+1}; nothing is
 * expected after the end. The returns are A + V.
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
 * Makes the numbers of some lists, taken together, deviate from their mean by 1: (x − mean) / √(variance + 1e-8), with the variance of
 * a sample (n − 1). A single number deviates by 0.
 *
 * @param shiftMean whether the mean becomes 0, or stays as it is
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
 * Rewards, advantages and returns of the texts of an iteration. Each token is rewarded with −klCoef · KL; the last place, which is the
 * end token's or the one after it, with the score besides. Whitening takes all texts together.
 *
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { returnsOf } from "./returns.ts";
 *
 * const text = { logprobs: [-1, -0.5, -0.25], reference: [-1.2, -0.4, -0.25], values: [0.1, 0.2, 0.3, 0.4], score: 2 };
 * const [{ rewards, returns }] = returnsOf([text]);
 * assertAlmostEquals(rewards[0], -0.05 * 0.2, 1e-12); // 0.2 nats from the reference
 * assertAlmostEquals(returns[3], 2, 1e-12); // the score is all that comes after the end
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

/** What {@linkcode adaptedKlCoef} holds to. */
export interface AdaptiveKlOptions {
  /** The first coefficient. */ readonly klCoef: number;
  /** Nats a text that the policy is to be away from the reference. */ readonly target: number;
  /** Texts in which the coefficient changes by the error, which is 0.2 at most. */ readonly horizon: number;
}

/**
 * The next coefficient of a KL penalty that holds a target: coef · (1 + e · texts / horizon), e = KL / target − 1 within ±0.2. Ziegler
 * et al. 2019, "Fine-tuning language models from human preferences", arXiv:1909.08593, section 2.2.
 *
 * @param kl nats a text, the mean of the last iteration
 * @param texts of the last iteration
 */
export function adaptedKlCoef(
  { klCoef, target, horizon }: AdaptiveKlOptions,
  { kl, texts }: { readonly kl: number; readonly texts: number },
): number {
  return klCoef * (1 + Math.min(0.2, Math.max(-0.2, kl / target - 1)) * texts / horizon);
}
