/** The options of policy gradients of groups, with TRL's names and defaults. */
import { ConfigError } from "../errors.ts";
import type { ScaleRewards } from "./advantages.ts";
import type { GroupOptions, PolicyLossType } from "./group_batches.ts";
import type { RolloutTaskOptions } from "./rollout_task.ts";
import type { RolloutOptions } from "./rollouts.ts";

/** How `PolicyGradient` writes and learns. */
export interface PolicyGradientOptions extends RolloutTaskOptions, RolloutOptions {
  /** Default: grpo. */ readonly method?: "grpo" | "rloo";
  /** Micro-batches that are written at once; a multiple of the trainer's `gradientAccumulationSteps`. Default 1. */
  readonly stepsPerGeneration?: number;
  /** Completions of a prompt; divides those that are written at once. Default: 8, of RLOO 2. */
  readonly numGenerations?: number;
  /** How often they are learned from. Default 1. */ readonly numIterations?: number;
  /** The weight of KL to `reference`. Default: 0, of RLOO 0.05. */ readonly beta?: number;
  /** Ratios count from 1 − epsilon. Default 0.2. */ readonly epsilon?: number;
  /** Ratios count to 1 + epsilonHigh. Default: epsilon. */ readonly epsilonHigh?: number;
  /** Whether nothing is learned from completions without an end. Default false. */
  readonly maskTruncatedCompletions?: boolean;
  /** Of GRPO: to where ratios count with negative advantages. Default: without bound. */ readonly delta?: number;
  /** Of GRPO. Default: group. */ readonly scaleRewards?: ScaleRewards;
  /** Of GRPO. Default: dapo. */ readonly lossType?: PolicyLossType;
  /** Of GRPO: what a ratio is of. Default: token. */ readonly importanceSamplingLevel?: "token" | "sequence";
  /** Of GRPO: whether KL counts by the ratio. Default true. */ readonly useBiasCorrectionKl?: boolean;
  /** Of RLOO: whether advantages get the mean 0 and the deviation 1. Default false. */
  readonly normalizeAdvantages?: boolean;
}

/** The same with defaults. */
export type CompleteOptions =
  & PolicyGradientOptions
  & GroupOptions
  & Readonly<Record<"stepsPerGeneration" | "numIterations" | "epsilon" | "epsilonHigh" | "seed", number>>;

/** Fills in defaults. @throws {ConfigError} when options contradict each other */
export function completeOptions(options: PolicyGradientOptions): CompleteOptions {
  const { method = "grpo", batchSize, stepsPerGeneration = 1, reference, epsilon = 0.2 } = options;
  const { numGenerations = method === "grpo" ? 8 : 2, beta = method === "grpo" ? 0 : 0.05 } = options;
  const written = batchSize * stepsPerGeneration;
  if (numGenerations < 2) throw new ConfigError(`numGenerations is ${numGenerations}; expected 2 or more`);
  if (written % numGenerations !== 0) {
    throw new ConfigError(
      `${written} completions are written at once (batchSize · stepsPerGeneration); ` +
        `expected a multiple of numGenerations, which is ${numGenerations}`,
    );
  }
  if (beta !== 0 && !reference) {
    throw new ConfigError(`beta is ${beta}, and there is no reference that KL could be measured to`);
  }
  return {
    ...{ numIterations: 1, seed: 1337, lossType: "dapo", importanceSamplingLevel: "token", scaleRewards: "group" },
    ...{ useBiasCorrectionKl: true, epsilonHigh: epsilon },
    ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as PolicyGradientOptions,
    ...{ method, stepsPerGeneration, numGenerations, beta, epsilon },
  };
}
