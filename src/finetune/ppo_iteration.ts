/** One iteration of PPO on the host: completions, log-probabilities and values of them, the arrays of its updates, and its JSON. */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { BatchArray } from "../train/task.ts";
import { rowArrays } from "./policy.ts";
import type { ProximalBatch } from "./ppo_loss.ts";
import type { Returns, ScoredText } from "./returns.ts";
import { type Rollout, rolloutsFromJSON, rolloutsToJSON } from "./rollouts.ts";

/** Completions that are being learned from. */
export interface Iteration {
  /** Prompts and completions. */ readonly rollouts: readonly Rollout[];
  /** Log-probabilities, values and score of each. */ readonly texts: readonly ScoredText[];
  /** Advantages and returns of each. */ readonly returns: readonly Returns[];
}

/** Tokens of a completion. */
export const LENGTHS = "completions/mean_length";

/** The sum of what `of` makes of values. */
export function total<T>(values: Iterable<T>, of: (value: T) => number): number {
  let sum = 0;
  for (const value of values) sum += of(value);
  return sum;
}

/** Nats that a completion is away from the reference. */
export const meanKl = ({ returns }: Pick<Iteration, "returns">): number =>
  total(returns, ({ kl }) => total(kl, (nats) => nats)) / returns.length;

/** Means over completions, as TRL names them; `objective/entropy` is estimated by −log π of what was sampled, summed over a text. */
export function iterationMeasures({ rollouts, texts, returns }: Iteration, klCoef: number): Record<string, number> {
  const kl = meanKl({ returns }),
    mean = <T>(values: Iterable<T>, of: (value: T) => number) => total(values, of) / rollouts.length;
  const scores = mean(texts, ({ score }) => score), ended = total(rollouts, ({ ended }) => Number(ended));
  return {
    "objective/kl": kl,
    "objective/entropy": mean(texts, ({ logprobs }) => -total(Array.from(logprobs), (x) => x)),
    "objective/non_score_reward": -klCoef * kl,
    "objective/rlhf_reward": scores - klCoef * kl,
    "objective/scores": scores,
    [LENGTHS]: mean(rollouts, ({ ids, from }) => ids.length - from),
    "val/num_eos_tokens": ended,
  };
}

/** How {@linkcode updateArrays} makes a micro-batch. */
export interface UpdateOptions {
  /** Rows. */ readonly batchSize: number;
  /** To which they are padded. */ readonly lengths: readonly number[];
  /** Of the model. */ readonly vocabSize: number;
  /** Tokens in all micro-batches of the update. */ readonly tokens: number;
  /** Values that are learned in all of them. */ readonly places: number;
}

/** Numbers of a micro-batch of some completions of an iteration, each (B, T); what stands at a token is of the one after it. */
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

/** A micro-batch as the trainer takes it. */
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

/** Completions, with their log-probabilities, values and scores, as JSON for state.json; advantages are computed from these again. */
export const iterationToJSON = ({ rollouts, texts }: Iteration): Record<"rollouts" | "texts", unknown[]> => ({
  rollouts: rolloutsToJSON(rollouts),
  texts: texts.map(({ logprobs, reference, values, score }) => ({
    logprobs: Array.from(logprobs),
    reference: Array.from(reference),
    values: Array.from(values),
    score,
  })),
});

/** And back. @throws {CheckpointError} when it is not of `count` completions with a number for each token; `path` is the file's */
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
