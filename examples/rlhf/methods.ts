/** PPO, GRPO, RLOO and DPO on a small world, each with the settings that serve here. */
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

/** What is tuned, and where. */
export interface World {
  /** The first policy, which a penalty is for leaving; frozen. */ readonly reference: GPT;
  /** What can be answered. */ readonly answers: Answers;
  /** What is asked. */ readonly prompts: readonly RolloutPrompt[];
}

/** How a policy is tuned. */
export interface Tuning {
  /** What a nat away from the reference costs. */ readonly beta: number;
  readonly seed: number;
  /** What is to be earned, for methods that write answers. */ readonly rewards: readonly Reward[];
  /** Text of an answer's tokens, for rewards that read texts. */ readonly decode?: (ids: Int32Array) => string;
  /** How long, in terms of what serves here; default 1. */ readonly effort?: number;
  /** Called at the beginning, some times on the way, and at the end. */
  readonly onLook?: (share: number) => Promise<void>;
  /** How often on the way; default 0. */ readonly looks?: number;
}

/** Answers of a group. */
export const GROUP = 16;

/** Another model with a model's weights. */
export async function copyOf(model: GPT): Promise<GPT> {
  const { device, config } = model, copy = new GPT(config, { device, initialize: false });
  const to = new Map(copy.namedParameters());
  for (const [name, from] of model.namedParameters()) device.write(to.get(name)!.storage, await from.data());
  return copy;
}

/** Trains a model for a task, at a rate that falls to a hundredth; the task is disposed of. */
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

/** Proximal policy optimisation: 150 iterations of 256 answers, four epochs of two minibatches each. */
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

/** How groups are learned from. */
export interface GroupTuning extends Tuning {
  /** RLOO, whose penalty is part of the reward; GRPO with its penalty in the loss; or that with rewards scaled as TRL does. */
  readonly method: "rloo" | "grpo" | "grpo scaled";
}

/**
 * Group-relative policy gradients: 150 iterations of 1024 answers in groups of 16, four times in two minibatches. At the optimum
 * RLOO's advantages are all 0, since its penalty is part of them; 256 answers are enough there. GRPO's are not: its gradients stay
 * noisy.
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

/** Direct preference optimisation: 2000 updates of 128 pairs. @param rows two to a pair, the one that was chosen first */
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
