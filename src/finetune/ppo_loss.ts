/**
 * PPO's loss (Schulman et al. 2017, "Proximal policy optimization algorithms", arXiv:1707.06347, equation 7, with the
 * clipped value loss of OpenAI's baselines and TRL). With ratio = exp(log π − log π_old), advantages A, returns R, the
 * current values v and the values V from when the texts were sampled:
 *
 *     policy = mean of max(−A · ratio, −A · clip(ratio, 1 − ε, 1 + ε))
 *     value  = ½ mean of max((v − R)², (clip(v, V − ε_v, V + ε_v) − R)²)
 *     loss   = policy + c · value
 *
 * Means are over all tokens of an update. Each token has a share, which is its weight in the mean (0 if it is ignored).
 * A mean is the sum of share times value over the tokens of all micro-batches. So micro-batches may have different
 * numbers of tokens. (TRL weights micro-batches equally, however few tokens they have.)
 */
import { equal } from "../../kernels/binary/kernel.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { add, concat, exp, maximum, mul, neg, sub, sum } from "../ops/mod.ts";
import { binary } from "../ops/broadcast.ts";
import type { LossAndOutputs } from "../train/task.ts";

/** The names of {@linkcode proximalLoss}'s measures in TRL's PPOTrainer. */
export const PROXIMAL_MEASURES = [
  "loss/policy_avg",
  "loss/value_avg",
  "policy/approxkl_avg",
  "policy/clipfrac_avg",
  "policy/entropy_avg",
  "val/clipfrac_avg",
  "val/ratio",
] as const;

/** The outputs of the policy and the value function with their current weights; each f32 (B, T). */
export interface ProximalPass {
  /** log π of each position's next token. */ readonly logprobs: Tensor;
  /** Entropy of each position's next-token distribution, in nats. */ readonly entropy: Tensor;
  /** v: the value after each position. */ readonly values: Tensor;
}

/** Numbers from when the texts were sampled, and numbers computed from them; each f32 (B, T). */
export interface ProximalBatch {
  /** log π_old. */ readonly logprobs: Tensor;
  /** V. */ readonly values: Tensor;
  /** A. */ readonly advantages: Tensor;
  /** R. */ readonly returns: Tensor;
  /** Each token's share of the mean of the policy's loss. */ readonly policyShares: Tensor;
  /** Each value's share of the mean of the value loss. */ readonly valueShares: Tensor;
}

/** How far one update may move policy and values. Defaults are TRL's. */
export interface ProximalClipping {
  /** ε. Default: 0.2. */ readonly clipRange?: number;
  /** ε_v. Default: 0.2. */ readonly clipRangeValue?: number;
  /** c. Default: 0.1. */ readonly valueCoef?: number;
}

/**
 * Computes PPO's loss, (), and the {@linkcode PROXIMAL_MEASURES} of the batch. `policy/approxkl_avg` is ½ mean of (log
 * π − log π_old)². `clipfrac_avg` is the share of tokens whose clipped loss is greater than the loss without clipping.
 */
export function proximalLoss(
  now: ProximalPass,
  old: ProximalBatch,
  { clipRange = 0.2, clipRangeValue = 0.2, valueCoef = 0.1 }: ProximalClipping = {},
): LossAndOutputs {
  const { device } = now.logprobs, { policyShares, valueShares, returns } = old;
  using scope = device.scope();
  const number = (x: number) => device.tensor([x], []);
  const clip = (x: Tensor, least: Tensor, most: Tensor) => neg(maximum(neg(maximum(x, least)), neg(most)));
  const square = (x: Tensor) => mul(x, x), by = (shares: Tensor, x: Tensor) => sum(mul(x, shares));
  const change = sub(now.logprobs, old.logprobs), ratio = exp(change), cost = neg(old.advantages);
  const plain = mul(cost, ratio);
  const policyMost = maximum(plain, mul(cost, clip(ratio, number(1 - clipRange), number(1 + clipRange))));
  const policy = by(policyShares, policyMost);

  const range = number(clipRangeValue), half = number(0.5);
  const error = square(sub(now.values, returns));
  const near = clip(now.values, sub(old.values, range), add(old.values, range));
  const valueMost = maximum(error, square(sub(near, returns)));
  const value = mul(half, by(valueShares, valueMost));

  const outputs = noGrad(() => {
    const clipped = (most: Tensor, plain: Tensor) => sub(number(1), binary(equal, most, plain));
    const measured = [
      policy,
      value,
      mul(half, by(policyShares, square(change))),
      by(policyShares, clipped(policyMost, plain)),
      by(policyShares, now.entropy),
      by(valueShares, clipped(valueMost, error)),
      by(policyShares, ratio),
    ];
    return concat(measured.map((one) => one.alias([1])), { axis: 0 });
  });
  return { loss: scope.keep(add(policy, mul(number(valueCoef), value))), outputs: scope.keep(outputs) };
}
