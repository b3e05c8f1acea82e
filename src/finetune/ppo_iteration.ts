/**
 * The data of a PPO iteration on the host: completions, their log-probabilities and values, arrays for updates, and
 * JSON.
 */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { BatchArray } from "../train/task.ts";
import { spread } from "./advantages.ts";
import { rowArrays } from "./policy.ts";
import type { ProximalBatch } from "./ppo_loss.ts";
import type { Returns, ScoredText } from "./returns.ts";
import { MEAN_LENGTH } from "./rollout_task.ts";
import { type Rollout, rolloutsFromJSON, rolloutsToJSON } from "./rollouts.ts";

/** The completions of an iteration, and the numbers that its updates learn from. */
export interface Iteration {
  /** Prompts and completions. */ readonly rollouts: readonly Rollout[];
  /** Each completion's log-probabilities, values and score. */ readonly texts: readonly ScoredText[];
  /** Each completion's advantages and returns. */ readonly returns: readonly Returns[];
}

/** The mean KL of a completion to the reference, in nats. */
export const meanKl = ({ returns }: Pick<Iteration, "returns">): number =>
  spread(returns.map(({ kl }) => spread(kl).sum)).mean;

/**
 * Computes means over completions, under TRL's names. `objective/entropy` is an estimate: −log π of the sampled tokens,
 * summed per text.
 */
export function iterationMeasures({ rollouts, texts, returns }: Iteration, klCoef: number): Record<string, number> {
  const kl = meanKl({ returns }), scores = spread(texts.map(({ score }) => score)).mean;
  return {
    "objective/kl": kl,
    "objective/entropy": spread(texts.map(({ logprobs }) => -spread(logprobs).sum)).mean,
    "objective/non_score_reward": -klCoef * kl,
    "objective/rlhf_reward": scores - klCoef * kl,
    "objective/scores": scores,
    [MEAN_LENGTH]: spread(rollouts.map(({ ids, from }) => ids.length - from)).mean,
    "val/num_eos_tokens": rollouts.filter(({ ended }) => ended).length,
  };
}

/** Options of {@linkcode updateArrays}. */
export interface UpdateOptions {
  /** Rows in a micro-batch. */ readonly batchSize: number;
  /** The lengths that rows can be padded to. */ readonly lengths: readonly number[];
  /** The size of the model's vocabulary. */ readonly vocabSize: number;
  /** Tokens in all micro-batches of the update. */ readonly tokens: number;
  /** Values in all micro-batches of the update. */ readonly places: number;
}

/**
 * The log-probabilities, values, advantages, returns and shares of a micro-batch, each (B, T). The number at position t
 * belongs to token t + 1, which position t predicts.
 */
export function updateNumbers(
  { rollouts, texts, returns }: Iteration,
  rows: ArrayLike<number>,
  { batchSize, T, tokens, places }: Pick<UpdateOptions, "batchSize" | "tokens" | "places"> & { readonly T: number },
): Record<keyof ProximalBatch, Float64Array> {
  const part = (of: (row: number) => ArrayLike<number>) => {
    const values = new Float64Array(batchSize * T);
    for (let b = 0; b < rows.length; b++) values.set(of(rows[b]), b * T + rollouts[rows[b]].from - 1);
    return values;
  };
  const shares = (count: number, all: number) => new Float64Array(count).fill(1 / all);
  return {
    logprobs: part((row) => texts[row].logprobs),
    values: part((row) => texts[row].values),
    advantages: part((row) => returns[row].advantages),
    returns: part((row) => returns[row].returns),
    policyShares: part((row) => shares(returns[row].advantages.length, tokens)),
    valueShares: part((row) => shares(returns[row].returns.length, places)),
  };
}

/** The arrays of a micro-batch of an update. */
export function updateArrays(
  iteration: Iteration,
  rows: ArrayLike<number>,
  options: UpdateOptions,
): Record<string, BatchArray> {
  const ids = rowArrays(Array.from(rows, (row) => iteration.rollouts[row]), options), { shape } = ids.tokens;
  const numbers = Object.entries(updateNumbers(iteration, rows, { ...options, T: shape[1] }));
  return {
    ...ids,
    ...Object.fromEntries(numbers.map(([name, all]) => [name, { values: Float32Array.from(all), shape }])),
  };
}

/**
 * Completions with log-probabilities, values and scores as JSON, for state.json. Advantages are computed again from
 * them.
 */
export const iterationToJSON = ({ rollouts, texts }: Iteration): Record<"rollouts" | "texts", unknown[]> => ({
  rollouts: rolloutsToJSON(rollouts),
  texts: texts.map(({ logprobs, reference, values, score }) => ({
    logprobs: Array.from(logprobs),
    reference: Array.from(reference),
    values: Array.from(values),
    score,
  })),
});

/**
 * Completions from JSON.
 * @throws {CheckpointError} when there are not `count` completions with numbers for each token; the message names the
 *   file `path`
 */
export function iterationFromJSON(
  { rollouts, texts }: Readonly<Record<string, unknown>>,
  { count, path }: { readonly count: number; readonly path: string },
): { written: Rollout[]; texts: ScoredText[] } {
  const written = rolloutsFromJSON(rollouts, path);
  const numbers = (list: unknown, least: number, most = least): list is number[] =>
    Array.isArray(list) && list.length >= least && list.length <= most && list.every(Number.isFinite);
  const valid = (one: unknown, i: number): one is ScoredText => {
    if (!isObject(one)) return false;
    const { ids, from } = written[i], tokens = ids.length - from;
    return numbers(one.logprobs, tokens) && numbers(one.reference, tokens) &&
      numbers(one.values, tokens, tokens + 1) && Number.isFinite(one.score);
  };
  const whole = written.length === count && Array.isArray(texts) && texts.length === count;
  if (whole && texts.every(valid)) return { written, texts };
  throw new CheckpointError(
    `${path} is damaged: expected ${count} rollouts with log-probabilities, values and a score of each`,
  );
}
