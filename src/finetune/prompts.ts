/** Prompts for a policy, and scores of its completions. */
import type { Words } from "../data/examples.ts";
import type { Reward, Sample } from "./rewards.ts";
import type { Rollout } from "./rollouts.ts";

/** A prompt that a policy completes. */
export interface RolloutPrompt {
  /** The prompt's tokens, at least one. */ readonly ids: Int32Array;
  /** The prompt in the data: a text, or the messages of a conversation. */ readonly prompt: Words;
  /** Further columns of the prompt's row, which rewards can use. */ readonly more?: Readonly<Record<string, unknown>>;
}

/** Prompts for training and for evaluation. */
export interface PromptSplits {
  /** For training; one prompt or more. */ readonly train: readonly RolloutPrompt[];
  /** For evaluation; one prompt or more. */ readonly val: readonly RolloutPrompt[];
}

/** A sample of the policy's completions, for display. */
export interface RolloutSample {
  /** The prompt. */ readonly prompt: RolloutPrompt;
  /** The completion's text, without its end token. */ readonly completion: string;
  /** The weighted sum of all rewards. */ readonly reward: number;
}

/** The text of a rollout's completion, without its end token. */
export const textOf = (
  { ids, from }: Rollout,
  { decode, eosTokenId }: Pick<ScoreOptions, "decode" | "eosTokenId">,
): string => decode(ids.subarray(from, ids.at(-1) === eosTokenId ? ids.length - 1 : ids.length));

/** Options of {@linkcode scoreRollouts}. */
export interface ScoreOptions {
  /** The prompts that the rollouts' `promptIndex` refers to. */ readonly prompts: readonly RolloutPrompt[];
  /** The rewards, at least one. */ readonly rewards: readonly Reward[];
  /** Turns a completion's tokens into text. */ readonly decode: (ids: Int32Array) => string;
  /** The end token of completions, which is not part of their text. */ readonly eosTokenId?: number;
  /** Aborts scoring. */ readonly signal?: AbortSignal;
}

/** The rewards of rollouts, in the order of the rollouts. */
export interface RolloutScores {
  /** The weighted sum of all rewards. */ readonly total: Float64Array;
  /** Each reward's scores under its name, without its weight. */ readonly each: Readonly<Record<string, Float64Array>>;
}

/** Scores rollouts with all rewards concurrently. @throws the error of a reward that fails */
export async function scoreRollouts(
  rollouts: readonly Rollout[],
  { prompts, rewards, signal, ...how }: ScoreOptions,
): Promise<RolloutScores> {
  const samples = rollouts.map((rollout): Sample => {
    const { ids, from, ended, promptIndex } = rollout, { prompt, more } = prompts[promptIndex];
    return { prompt, completion: textOf(rollout, how), ids, from, ended, more };
  });
  const scores = await Promise.all(rewards.map((reward) => reward.score(samples, { signal })));
  const total = new Float64Array(samples.length);
  for (const [k, { weight }] of rewards.entries()) scores[k].forEach((score, i) => total[i] += weight * score);
  return { total, each: Object.fromEntries(rewards.map(({ name }, k) => [name, scores[k]])) };
}
