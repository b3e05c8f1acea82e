/** The options of PPO. */
import type { Tokens } from "../data/tokens.ts";
import type { ProximalClipping } from "./ppo_loss.ts";
import type { ReturnOptions } from "./returns.ts";
import type { RolloutTaskOptions } from "./rollout_task.ts";
import type { ValueFunction } from "./value.ts";

/** How `ProximalPolicy` learns; the defaults are TRL's, unless it says otherwise. */
export interface ProximalOptions extends RolloutTaskOptions, ReturnOptions, ProximalClipping {
  /** Micro-batches of an update, as the trainer's `gradientAccumulationSteps`; default 1. */
  readonly microBatches?: number;
  /** Updates of an epoch: an iteration has batchSize · microBatches · miniBatches completions. Default 1. */
  readonly miniBatches?: number;
  /** How often an iteration goes over its completions; default 4. */ readonly epochs?: number;
  /** What the penalty is for leaving. */ readonly reference: NonNullable<RolloutTaskOptions["reference"]>;
  /** Default: a head on the policy's body. TRL has a model beside it. */ readonly value?: ValueFunction;
  /** Where the score counts: at the last token, or one place `behind` it where there is room, as in TRL. Default: `end`. */
  readonly scoreAt?: "end" | "behind";
  /** What a completion loses that has no end; default 0. */ readonly missingEndPenalty?: number;
  /** Nats a text that the penalty is to hold, by changing its coefficient; default: the coefficient stays. */
  readonly klTarget?: number;
  /** Completions in which it changes by a fifth at most; default 10000, as Ziegler et al. have it. */
  readonly klHorizon?: number;
  /** A text that the policy goes on learning, blocks of the model's size, `batchSize` in a micro-batch; and what its loss counts. */
  readonly pretraining?: { readonly tokens: Tokens; readonly coef: number; readonly batchSize: number };
}
