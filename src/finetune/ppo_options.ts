/** The options of PPO. */
import type { Tokens } from "../data/tokens.ts";
import type { ProximalClipping } from "./ppo_loss.ts";
import type { ReturnOptions } from "./returns.ts";
import type { RolloutTaskOptions } from "./rollout_task.ts";
import type { ValueFunction } from "./value.ts";

/** Options of `ProximalPolicy`. Defaults are TRL's, unless a field says otherwise. */
export interface ProximalOptions extends RolloutTaskOptions, ReturnOptions, ProximalClipping {
  /** Micro-batches in an update, used instead of the trainer's `gradientAccumulationSteps`. Default: 1. */
  readonly microBatches?: number;
  /** Updates in an epoch. An iteration has batchSize · microBatches · miniBatches completions. Default: 1. */
  readonly miniBatches?: number;
  /** How many times an iteration goes over its completions. Default: 4. */ readonly epochs?: number;
  /** The policy whose distance from the trained policy the KL penalty measures. */ readonly reference: NonNullable<
    RolloutTaskOptions["reference"]
  >;
  /** The value function. Default: a head on the policy's body (TRL uses a separate model). */
  readonly value?: ValueFunction;
  /**
   * Where the score is added to the rewards: at the last token (`end`), or `behind` it (one position later, if there is
   * room), as in TRL. Default: `end`.
   */
  readonly scoreAt?: "end" | "behind";
  /** Subtracted from the score of a completion that was cut off at `maxNewTokens`. Default: 0. */
  readonly missingEndPenalty?: number;
  /** The KL per completion, in nats, that an adaptive `klCoef` aims for. Default: `klCoef` is constant. */
  readonly klTarget?: number;
  /**
   * The number of completions in which an adaptive `klCoef` changes by at most 20 %. Default: 10000, as in Ziegler et
   * al. 2019.
   */
  readonly klHorizon?: number;
  /**
   * PPO-ptx: a text that updates also learn, in `batchSize` blocks of the model's block size per micro-batch, and the
   * weight `coef` of its loss.
   */
  readonly pretraining?: { readonly tokens: Tokens; readonly coef: number; readonly batchSize: number };
}
