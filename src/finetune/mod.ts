/**
 * Fine-tuning: supervised tuning on prompts and answers, with packing; LoRA adapters in PEFT's format; heads for
 * classification and multiple choice; training only some layers; preferences (DPO), reward models, and reinforcement
 * learning (PPO, GRPO, RLOO).
 *
 * @module
 */
export {
  loadAdapter,
  type LoadAdapterOptions,
  saveAdapter,
  type SaveAdapterOptions,
  trainedAdapter,
} from "./adapter.ts";
export { AdapterBank } from "./adapter_bank.ts";
export { adaptersOf, applyLora, Lora, type LoraOptions } from "./lora.ts";
export { LoraLinear } from "./lora_layers.ts";
export * from "./dpo.ts";
export { type Head, type HeadDescription, newHead } from "./head_description.ts";
export * from "./head_passes.ts";
export { HeadRows } from "./head_rows.ts";
export * from "./head_task.ts";
export * from "./heads.ts";
export * from "./inputs.ts";
export { type LabelAt, type Labelling, labellingOf } from "./labels.ts";
export type { ScaleRewards } from "./advantages.ts";
export type { PolicyLossType } from "./group_batches.ts";
export type { PolicyGradientOptions } from "./group_options.ts";
export * from "./grpo.ts";
export * from "./packing.ts";
export { type PairSizes, type PreferenceRows, referenceSums } from "./pairs.ts";
export * from "./policy.ts";
export * from "./ppo.ts";
export type { ProximalOptions } from "./ppo_options.ts";
export { PROXIMAL_MEASURES, type ProximalClipping } from "./ppo_loss.ts";
export * from "./returns.ts";
export * from "./value.ts";
export type { LogprobStatistics } from "../ops/logprobs.ts";
export { type RowOptions, RowTask, type Splits } from "./row_task.ts";
export * from "./reward.ts";
export { RewardFunction } from "./reward_function.ts";
export {
  plainReward,
  type Reward,
  RewardModel,
  type RewardOptions,
  type Sample,
  type ScoringModel,
} from "./rewards.ts";
export {
  type PromptSplits,
  type RolloutPrompt,
  type RolloutSample,
  type RolloutScores,
  type ScoreOptions,
  scoreRollouts,
} from "./prompts.ts";
export { type Answers, RolloutTask, type RolloutTaskOptions } from "./rollout_task.ts";
export {
  Roller,
  type RollOptions,
  type Rollout,
  type RolloutOptions,
  rolloutsFromJSON,
  rolloutsToJSON,
} from "./rollouts.ts";
export * from "./sft.ts";
export * from "./transfer.ts";
