/** The options of GRPO and RLOO, with TRL's names and defaults. */
import { ConfigError } from "../errors.ts";
import type { ScaleRewards } from "./advantages.ts";
import type { GroupOptions, PolicyLossType } from "./group_batches.ts";
import type { RolloutTaskOptions } from "./rollout_task.ts";
import type { RolloutOptions } from "./rollouts.ts";

/** Options of `PolicyGradient`. */
export interface PolicyGradientOptions extends RolloutTaskOptions, RolloutOptions {
  /** The method. Default: grpo. */ readonly method?: "grpo" | "rloo";
  /** Micro-batches in an iteration; a multiple of the trainer's `gradientAccumulationSteps`. Default: 1. */
  readonly stepsPerGeneration?: number;
  /** Completions per prompt; must divide batchSize · stepsPerGeneration. Default: 8 for GRPO, 2 for RLOO. */
  readonly numGenerations?: number;
  /** How many times an iteration goes over its completions. Default: 1. */ readonly numIterations?: number;
  /** Weight of the KL to `reference`. Default: 0 for GRPO, 0.05 for RLOO. */ readonly beta?: number;
  /** Ratios are clipped below 1 − epsilon. Default: 0.2. */ readonly epsilon?: number;
  /** Ratios are clipped above 1 + epsilonHigh. Default: epsilon. */ readonly epsilonHigh?: number;
  /** Whether completions that were cut off at `maxNewTokens` are left out of the loss. Default: false. */
  readonly maskTruncatedCompletions?: boolean;
  /** GRPO: upper bound of ratios, which matters if an advantage is negative. Default: no bound. */ readonly delta?:
    number;
  /** GRPO: the deviation that advantages are divided by, see {@linkcode ScaleRewards}. Default: group. */ readonly scaleRewards?:
    ScaleRewards;
  /** GRPO: the divisor of the loss, see {@linkcode PolicyLossType}. Default: dapo. */ readonly lossType?:
    PolicyLossType;
  /** GRPO: whether ratios are computed for tokens or for texts. Default: token. */
  readonly importanceSamplingLevel?: "token" | "sequence";
  /** GRPO: whether KL is multiplied by the ratio. Default: true. */ readonly useBiasCorrectionKl?: boolean;
  /** RLOO: whether advantages are scaled to mean 0 and standard deviation 1. Default: false. */
  readonly normalizeAdvantages?: boolean;
}

/** The options with their defaults filled in. */
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
    throw new ConfigError(`beta is ${beta}, but there is no reference to measure KL to; expected one, or a beta of 0`);
  }
  return {
    ...{ numIterations: 1, seed: 1337, lossType: "dapo", importanceSamplingLevel: "token", scaleRewards: "group" },
    ...{ useBiasCorrectionKl: true, epsilonHigh: epsilon },
    ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as PolicyGradientOptions,
    ...{ method, stepsPerGeneration, numGenerations, beta, epsilon },
  };
}
