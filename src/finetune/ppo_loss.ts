/**
 * PPO's loss of a batch of texts (Schulman et al. 2017, "Proximal policy optimization algorithms", arXiv:1707.06347, equation 7, with
 * the clipped values of OpenAI's baselines and TRL). With ratio = exp(log π − log π_old), advantages A, returns R and what the values
 * were, V:
 *
 *     policy = mean of max(−A · ratio, −A · clip(ratio, 1 − ε, 1 + ε))
 *     value  = ½ mean of max((v − R)², (clip(v, V − ε_v, V + ε_v) − R)²)
 *     loss   = policy + c · value
 *
 * A mean over an update's tokens is a sum of what each micro-batch has of it: every token brings its share of the mean, 0 where it does
 * not count. So micro-batches may be of any lengths (TRL gives each the same weight, however few its tokens are).
 */
import { equal } from "../../kernels/binary/kernel.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { add } from "../ops/add.ts";
import { binary } from "../ops/broadcast.ts";
import { concat } from "../ops/concat.ts";
import { exp } from "../ops/exp.ts";
import { maximum } from "../ops/maximum.ts";
import { mul } from "../ops/mul.ts";
import { neg } from "../ops/neg.ts";
import { sub } from "../ops/sub.ts";
import { sum } from "../ops/sum.ts";
import type { LossAndOutputs } from "../train/task.ts";

/** Names of what {@linkcode proximalLoss} measures, as TRL's PPOTrainer has them. */
export const PROXIMAL_MEASURES = [
  "loss/policy_avg",
  "loss/value_avg",
  "policy/approxkl_avg",
  "policy/clipfrac_avg",
  "policy/entropy_avg",
  "val/clipfrac_avg",
  "val/ratio",
] as const;

/** What policy and value function say now; each f32 (B, T). */
export interface ProximalPass {
  /** log π of the token that follows each. */ readonly logprobs: Tensor;
  /** Of the policy's distribution after each token, in nats. */ readonly entropy: Tensor;
  /** What is expected after each token. */ readonly values: Tensor;
}

/** What was said when the texts were sampled, and came of it; each f32 (B, T). */
export interface ProximalBatch {
  /** log π_old. */ readonly logprobs: Tensor;
  /** V. */ readonly values: Tensor;
  /** A */ readonly advantages: Tensor;
  /** R */ readonly returns: Tensor;
  /** Each token's share of the policy's mean. */ readonly policyShares: Tensor;
  /** And of the values' mean. */ readonly valueShares: Tensor;
}

/** How far an update may go; the defaults are TRL's. */
export interface ProximalClipping {
  /** ε: default 0.2. */ readonly clipRange?: number;
  /** ε_v: default 0.2. */ readonly clipRangeValue?: number;
  /** c: default 0.1. */ readonly valueCoef?: number;
}

/**
 * PPO's loss, (), and {@linkcode PROXIMAL_MEASURES} of the batch: all of them sums by shares. `policy/approxkl_avg` is ½ mean of
 * (log π − log π_old)², and the two shares of clipped tokens count those whose clipped loss is the greater.
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
