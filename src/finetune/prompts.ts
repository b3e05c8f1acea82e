/** Prompts to a policy, and scores of what it answers. */
import type { Words } from "../data/examples.ts";
import type { Reward, Sample } from "./rewards.ts";
import type { Rollout } from "./rollouts.ts";

/** What a policy is to answer. */
export interface RolloutPrompt {
  /** Its tokens, one or more. */ readonly ids: Int32Array;
  /** As it stands in the data: a text, or the turns of a conversation. */ readonly prompt: Words;
  /** Other columns of its row, for rewards. */ readonly more?: Readonly<Record<string, unknown>>;
}

/** Prompts to learn on, and to be judged by. */
export interface PromptSplits {
  /** One or more. */ readonly train: readonly RolloutPrompt[];
  /** One or more. */ readonly val: readonly RolloutPrompt[];
}

/** A completion to be shown. */
export interface RolloutSample {
  /** What it answers. */ readonly prompt: RolloutPrompt;
  /** Its text, without the token that ends it. */ readonly completion: string;
  /** Of all rewards. */ readonly reward: number;
}

/** What a rollout's completion says, without the token that ends it. */
export const textOf = (
  { ids, from }: Rollout,
  { decode, eosTokenId }: Pick<ScoreOptions, "decode" | "eosTokenId">,
): string => decode(ids.subarray(from, ids.at(-1) === eosTokenId ? ids.length - 1 : ids.length));

/** What {@linkcode scoreRollouts} needs besides the rollouts. */
export interface ScoreOptions {
  /** By the rollouts' `promptIndex`. */ readonly prompts: readonly RolloutPrompt[];
  /** One or more. */ readonly rewards: readonly Reward[];
  /** The text of a completion's tokens. */ readonly decode: (ids: Int32Array) => string;
  /** The token that ends a completion, and is no part of its text. */ readonly eosTokenId?: number;
  /** Gives up. */ readonly signal?: AbortSignal;
}

/** The rewards of some rollouts, in their order. */
export interface RolloutScores {
  /** Each reward by its weight, summed. */ readonly total: Float64Array;
  /** By the rewards' names, without weights. */ readonly each: Readonly<Record<string, Float64Array>>;
}

/** Scores rollouts by all rewards at once. @throws what a reward throws */
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
