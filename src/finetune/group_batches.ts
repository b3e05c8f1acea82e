/**
 * Turns the completions of a GRPO or RLOO iteration into advantages, measures and the arrays of micro-batches, on the
 * host in f64. These functions neither write completions nor train, so tests can call them with recorded iterations.
 */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { Measures, MicroBatch } from "../train/task.ts";
import { equalGroups, groupAdvantages, leaveOneOut, type ScaleRewards, spread } from "./advantages.ts";
import { rowArrays } from "./policy.ts";
import type { RatioLevel } from "./policy_loss.ts";
import type { RolloutScores } from "./prompts.ts";
import { isCount, type Rollout, rolloutsFromJSON, rolloutsToJSON } from "./rollouts.ts";

/** TRL's `loss_type`: the divisor of the sum of the loss over a micro-batch's tokens. */
export type PolicyLossType =
  /** The mean number of tokens of the iteration's completions, times the completions of a micro-batch. */
  | "dapo"
  /** Each completion's number of tokens, times the completions of a micro-batch. */
  | "grpo"
  /** The number of tokens in the micro-batch. */
  | "bnpo"
  /** `maxNewTokens`, times the completions of a micro-batch. */
  | "dr_grpo";

/** How advantages and losses of groups are computed. */
export interface GroupOptions {
  readonly method: "grpo" | "rloo";
  readonly numGenerations: number;
  readonly beta: number;
  readonly scaleRewards: ScaleRewards;
  readonly normalizeAdvantages?: boolean;
  readonly lossType: PolicyLossType;
  readonly importanceSamplingLevel: "token" | "sequence";
  readonly maskTruncatedCompletions?: boolean;
  readonly maxNewTokens: number;
}

/** Completions, and the log-probabilities of their tokens. */
export interface GroupRollouts {
  /** The completions of a prompt are next to each other. */ readonly rollouts: readonly Rollout[];
  /** Log-probabilities under the policy that wrote the completions. Undefined if the weights have not changed since. */
  readonly old?: readonly ArrayLike<number>[];
  /** Log-probabilities under the reference. */ readonly reference?: readonly ArrayLike<number>[];
}

/** The completions of an iteration, in the order of its micro-batches, with their advantages and measures. */
export interface Iteration extends GroupRollouts {
  readonly advantages: ArrayLike<number>;
  readonly measures: Measures;
  /** Micro-batches drawn so far. */
  drawn: number;
}

/** Whether ratios are computed for tokens or for whole texts. */
export const levelOf = ({ method, importanceSamplingLevel }: GroupOptions): RatioLevel =>
  method === "rloo" ? "sum" : importanceSamplingLevel === "sequence" ? "mean" : "token";

/**
 * Computes the advantages of completions, their measures under TRL's names, and their mean KL to the reference in nats
 * per completion. KL is the estimate "k1", from the log-probabilities under the policy that wrote the completions.
 */
export function judgeGroups(
  { rollouts, old, reference }: GroupRollouts,
  scores: RolloutScores,
  { method, numGenerations: size, beta, scaleRewards, normalizeAdvantages: normalize }: GroupOptions,
): { readonly advantages: Float64Array; readonly measures: Measures; readonly kl: number } {
  const texts = old && reference && old.map((own, i) => spread(own).sum - spread(reference[i]).sum);
  const { mean: kl } = spread(texts ?? [0]), isGrpo = method === "grpo", { total } = scores;
  const rewards = !isGrpo && texts ? total.map((reward, i) => reward - beta * texts[i]) : total;
  const advantages = isGrpo ? groupAdvantages(rewards, size, scaleRewards) : leaveOneOut(rewards, size, { normalize });
  const tokens = spread(rollouts.map(({ ids, from }) => ids.length - from)).mean;
  const measures = {
    ...rewardMeasures(scores),
    frac_reward_zero_std: equalGroups(rewards, size),
    ...lengthMeasures(rollouts),
    ...texts && { "objective/kl": kl },
    ...texts && (!isGrpo || beta === 0) && { kl: kl / tokens },
  };
  return { advantages, measures, kl };
}

/** The mean and the standard deviation of the total reward and of each single reward, under TRL's names. */
function rewardMeasures({ total, each }: RolloutScores): Measures {
  const { mean: reward, std: reward_std } = spread(total);
  const own = Object.entries(each).flatMap(([name, scores]) => {
    const { mean, std } = spread(scores);
    return [[`rewards/${name}/mean`, mean], [`rewards/${name}/std`, std]];
  });
  return { reward, reward_std, ...Object.fromEntries(own) };
}

/**
 * The mean, minimum and maximum length of completions in tokens, under TRL's names: of all completions, and of the
 * completions that have an end token.
 */
function lengthMeasures(rollouts: readonly Rollout[]): Measures {
  const lengths = (some: readonly Rollout[]) => some.map(({ ids, from }) => ids.length - from);
  const all = lengths(rollouts), ended = lengths(rollouts.filter((one) => one.ended));
  const named = (some: readonly number[], kind: string) => ({
    [`completions/mean_${kind}`]: spread(some).mean,
    [`completions/min_${kind}`]: Math.min(...some),
    [`completions/max_${kind}`]: Math.max(...some),
  });
  return {
    ...named(all, "length"),
    ...named(ended.length > 0 ? ended : [0], "terminated_length"),
    "completions/clipped_ratio": 1 - ended.length / all.length,
  };
}

/** The number of tokens of a completion that count in the loss. */
const learned = ({ ids, from, ended }: Rollout, { maskTruncatedCompletions }: GroupOptions): number =>
  maskTruncatedCompletions && !ended ? 0 : ids.length - from;

/** The completions of a micro-batch, and how its rows are padded. */
export interface GroupBatch {
  /** Index of the first completion. */ readonly at: number;
  /** The number of completions. */
  readonly batchSize: number;
  /** The lengths that rows can be padded to. */ readonly lengths: readonly number[];
  readonly vocabSize: number;
}

/** The arrays of a micro-batch, the inputs of `policyLoss`. */
export function groupArrays(
  { rollouts, advantages, old, reference }: Omit<Iteration, "measures" | "drawn">,
  { at, batchSize: B, lengths, vocabSize }: GroupBatch,
  options: GroupOptions,
): MicroBatch["arrays"] {
  const { method, lossType, maxNewTokens, beta } = options, level = levelOf(options);
  const counts = rollouts.map((rollout) => learned(rollout, options)), all = spread(counts).mean * B;
  const own = counts.slice(at, at + B), total = spread(own).sum, sum = Math.max(total, 1);
  const rows = rollouts.slice(at, at + B).map(({ ids, from }, b) => ({ ids, from: own[b] === 0 ? ids.length : from }));
  const ids = rowArrays(rows, { lengths, batchSize: B, vocabSize }), [, T] = ids.tokens.shape;
  const shares: Record<PolicyLossType, (b: number) => number> = {
    dapo: () => 1 / Math.max(all, 1),
    grpo: (b) => 1 / (own[b] * B),
    bnpo: () => 1 / sum,
    dr_grpo: () => 1 / (B * maxNewTokens),
  };
  /** (B, T): `of(row, index of the learned token)` at the position that predicts the token, and 0 elsewhere. */
  const each = (of: (b: number, t: number) => number) => {
    const values = new Float64Array(B * T);
    for (let b = 0; b < B; b++) {
      const first = b * T + rows[b].from - 1;
      for (let t = 0; t < own[b]; t++) values[first + t] = of(b, t);
    }
    return { values, shape: [B, T] };
  };
  /** (B, 1): one number for each row. */
  const one = (of: (b: number) => number) => ({
    values: Float64Array.from({ length: B }, (_, b) => of(b)),
    shape: [B, 1],
  });
  const clipped = (sign: number) => {
    const counts = (b: number) => Math.sign(advantages[at + b]) === sign;
    return level === "token" ? each((b) => counts(b) ? 1 / own[b] : 0) : one((b) => Number(counts(b)));
  };
  return {
    ...ids,
    ...old && { old: each((b, t) => old[at + b][t]) },
    ...reference && method === "grpo" && beta !== 0 && { reference: each((b, t) => reference[at + b][t]) },
    against: one((b) => -advantages[at + b]),
    share: method === "rloo" ? one(() => 1 / B) : each(shares[lossType]),
    ...level !== "token" && { pool: each((b) => level === "sum" ? 1 : 1 / own[b]) },
    mean: each(() => 1 / sum),
    low: clipped(-1),
    high: clipped(1),
    texts: one((b) => level === "token" && total > 0 ? own[b] / total : 1 / B),
  };
}

/** An iteration as JSON, for state.json. */
export function iterationToJSON({ rollouts, old, reference, advantages, ...rest }: Iteration): Record<string, unknown> {
  const lists = (all?: readonly ArrayLike<number>[]) => all?.map((one) => Array.from(one));
  return {
    rollouts: rolloutsToJSON(rollouts),
    old: lists(old),
    reference: lists(reference),
    advantages: Array.from(advantages),
    ...rest,
  };
}

/**
 * An iteration from JSON.
 * @throws {CheckpointError} when it is not a valid iteration of `length` completions; the message names the file `path`
 */
export function iterationFromJSON(saved: unknown, { length, path }: { length: number; path: string }): Iteration {
  const { rollouts: written, advantages, old, reference, measures, drawn } = isObject(saved) ? saved : {};
  const rollouts = rolloutsFromJSON(written, path);
  const areNumbers = (all: unknown, length: number): all is number[] =>
    Array.isArray(all) && all.length === length && all.every(Number.isFinite);
  const ofTokens = (all: unknown): all is number[][] | undefined =>
    all === undefined || Array.isArray(all) && all.length === length &&
      rollouts.every(({ ids, from }, i) => areNumbers(all[i], ids.length - from));
  const valid = rollouts.length === length && areNumbers(advantages, length) && isObject(measures) &&
    isCount(drawn);
  if (valid && ofTokens(old) && ofTokens(reference)) {
    return { rollouts, advantages, old, reference, measures: measures as Measures, drawn };
  }
  throw new CheckpointError(`${path} is damaged: its state of the current iteration is not valid`);
}
