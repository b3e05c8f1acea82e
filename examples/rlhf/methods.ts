/** PPO, GRPO, RLOO and DPO for a small world, each with suitable settings. */
import { GPT, type Task, Trainer, type TrainerOptions } from "@nanogpt/ts";
import type { TokenRows } from "@nanogpt/ts/data";
import {
  DirectPreference,
  PolicyGradient,
  ProximalPolicy,
  ReferencePolicy,
  referenceSums,
  type Reward,
  type RolloutPrompt,
} from "@nanogpt/ts/finetune";

import type { Answers } from "./optimum.ts";

/** What policies are trained on, besides rewards or preferences. */
export interface World {
  /** A frozen copy of the policy before training. A penalty keeps trained policies near it. */ readonly reference: GPT;
  /** All possible answers. */ readonly answers: Answers;
  /** The prompts. */ readonly prompts: readonly RolloutPrompt[];
}

/** Options for training a policy. */
export interface Tuning {
  /** Penalty for each nat of divergence from the reference. */ readonly beta: number;
  readonly seed: number;
  /** The rewards, for methods that generate answers. */ readonly rewards: readonly Reward[];
  /** Decodes an answer's tokens, for rewards that read texts. */ readonly decode?: (ids: Int32Array) => string;
  /** Length of the training, relative to the default; default 1. */ readonly effort?: number;
  /** Called at the beginning, `looks` times during the training, and at the end. */
  readonly onLook?: (share: number) => Promise<void>;
  /** Number of calls of `onLook` between beginning and end; default 0. */ readonly looks?: number;
}

/** Answers per group. */
export const GROUP = 16;

/** Copies a model. */
export async function copyOf(model: GPT): Promise<GPT> {
  const { device, config } = model, copy = new GPT(config, { device, initialize: false });
  const to = new Map(copy.namedParameters());
  for (const [name, from] of model.namedParameters()) device.write(to.get(name)!.storage, await from.data());
  return copy;
}

/** Trains a model for a task, with a learning rate that decays to a hundredth, and disposes of the task. */
export async function train(
  model: GPT,
  task: Task & Partial<Disposable>,
  { learningRate, updates, onLook, looks = 0 }: Pick<Tuning, "onLook" | "looks"> & {
    readonly learningRate: number;
    readonly updates: number;
  },
): Promise<void> {
  const options: Partial<TrainerOptions> = {
    ...{ learningRate, minLr: learningRate / 100, warmupIters: 10, lrDecayIters: updates, weightDecay: 0, beta2: 0.99 },
    ...{ gradientAccumulationSteps: 1, maxIters: updates - 1, evalInterval: 2 * updates, evalIters: 1, logInterval: 1 },
  };
  using trainer = new Trainer(model, task, options);
  const every = updates / (looks + 1);
  await onLook?.(0);
  for await (const event of trainer.run()) {
    if (event.kind !== "step") continue;
    const done = event.iter + 1;
    if (Math.floor(done / every) > Math.floor((done - 1) / every)) await onLook?.(done / updates);
  }
  task[Symbol.dispose]?.();
}

/** Proximal policy optimisation: 150 iterations of 256 answers, with four epochs of two minibatches each. */
export async function ppo(model: GPT, world: World, tuning: Tuning): Promise<void> {
  const { beta, seed, rewards, decode = () => "", effort = 1, ...looking } = tuning;
  const { answers, prompts, reference } = world, epochs = 4, miniBatches = 2;
  const task = new ProximalPolicy(model, { train: prompts, val: prompts }, {
    ...{ batchSize: 128, miniBatches, epochs, klCoef: beta, maxKl: Infinity, seed },
    ...{ maxNewTokens: answers.length, eosTokenId: answers.end, reference, rewards, decode },
  });
  await train(model, task, {
    ...looking,
    learningRate: 2e-3,
    updates: Math.round(150 * effort) * epochs * miniBatches,
  });
}

/** Options for training with groups. */
export interface GroupTuning extends Tuning {
  /**
   * RLOO, whose penalty is part of the reward; GRPO, whose penalty is in the loss; or GRPO with rewards scaled as in
   * TRL.
   */
  readonly method: "rloo" | "grpo" | "grpo scaled";
}

/**
 * Group-relative policy gradients: 150 iterations of 1024 answers in groups of 16, four passes over two minibatches
 * each. RLOO needs only 256 answers: its advantages include the penalty and are all 0 at the optimum. GRPO's advantages
 * are not, so its gradients stay noisy.
 */
export async function groups(model: GPT, world: World, { method, ...tuning }: GroupTuning): Promise<void> {
  const { beta, seed, rewards, decode = () => "", effort = 1, ...looking } = tuning;
  const { answers, prompts, reference } = world, stepsPerGeneration = 2, numIterations = 4, rloo = method === "rloo";
  const task = new PolicyGradient(model, { train: prompts, val: prompts }, {
    ...(rloo ? { method: "rloo" } : { scaleRewards: method === "grpo" ? "none" : "group" }),
    ...{ batchSize: rloo ? 128 : 512, stepsPerGeneration, numIterations, numGenerations: GROUP, beta, seed },
    ...{ maxNewTokens: answers.length, eosTokenId: answers.end, reference, rewards, decode },
  });
  const updates = Math.round(150 * effort) * stepsPerGeneration * numIterations;
  await train(model, task, { ...looking, learningRate: rloo ? 2e-3 : 4e-3, updates });
}

/** Direct preference optimisation: 2000 updates of 128 pairs. @param rows two rows per pair, the chosen answer first */
export async function dpo(
  model: GPT,
  { reference }: Pick<World, "reference">,
  { beta, seed, effort = 1, rows, ...looking }: Omit<Tuning, "rewards" | "decode"> & { readonly rows: TokenRows },
): Promise<void> {
  const options = { batchSize: 128, maxLength: model.config.blockSize, beta, seed };
  const sums = await referenceSums(new ReferencePolicy(model, reference), rows, options);
  const task = new DirectPreference(model, { train: rows, val: rows }, {
    ...options,
    reference: { train: sums, val: sums },
  });
  await train(model, task, { ...looking, learningRate: 3e-3, updates: Math.round(2000 * effort) });
}
