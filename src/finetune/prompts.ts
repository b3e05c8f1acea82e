/** Prompts to a policy, and scores of what it answers. */
import type { Words } from "../data/examples.ts";
import { identify, type TokensIdentity } from "../data/tokens.ts";
import { DataError } from "../errors.ts";
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

/** A completion, for whoever wants to see one. */
export interface RolloutSample {
  /** What it answers. */ readonly prompt: RolloutPrompt;
  /** Its text, without the token that ends it. */ readonly completion: string;
  /** Of all rewards. */ readonly reward: number;
}

/**
 * Looks at prompts before anything is written.
 *
 * @param what learns from them, for the message
 * @throws {DataError} when there are none in a part, or one is empty or leaves no room for an answer
 */
export function checkPrompts(
  what: string,
  prompts: PromptSplits,
  { blockSize, maxNewTokens }: { readonly blockSize: number; readonly maxNewTokens: number },
): void {
  for (const name of ["train", "val"] as const) {
    if (prompts[name].length === 0) throw new DataError(`${what}: ${name} has no prompts`);
    for (const [i, { ids }] of prompts[name].entries()) {
      if (ids.length > 0 && ids.length + maxNewTokens <= blockSize) continue;
      throw new DataError(
        `${what}: prompt ${i} of ${name} has ${ids.length} tokens; with ${maxNewTokens} more they don't fit into the block size of ${blockSize}`,
      );
    }
  }
}

/** What tells prompts from others: how many tokens they have, and a checksum. */
export function identityOf(prompts: readonly RolloutPrompt[]): TokensIdentity {
  const all = Int32Array.from(prompts.flatMap(({ ids }) => [...ids]));
  return identify({ length: all.length, subarray: (begin: number, end: number) => all.subarray(begin, end) });
}

/** A rollout with its text, for whoever wants to see one. */
export function sampleOf(
  { ids, from, promptIndex }: Rollout,
  reward: number,
  { prompts, decode, eosTokenId }: Pick<ScoreOptions, "prompts" | "decode" | "eosTokenId">,
): RolloutSample {
  const end = ids.at(-1) === eosTokenId ? ids.length - 1 : ids.length;
  return { prompt: prompts[promptIndex], completion: decode(ids.subarray(from, end)), reward };
}

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
  { prompts, rewards, decode, eosTokenId, signal }: ScoreOptions,
): Promise<RolloutScores> {
  const samples = rollouts.map(({ ids, from, ended, promptIndex }): Sample => {
    const end = ids.at(-1) === eosTokenId ? ids.length - 1 : ids.length, { prompt, more } = prompts[promptIndex];
    return { prompt, completion: decode(ids.subarray(from, end)), ids, from, ended, more };
  });
  const scores = await Promise.all(rewards.map((reward) => reward.score(samples, { signal })));
  const total = new Float64Array(samples.length);
  for (const [k, { weight }] of rewards.entries()) scores[k].forEach((score, i) => total[i] += weight * score);
  return { total, each: Object.fromEntries(rewards.map(({ name }, k) => [name, scores[k]])) };
}
