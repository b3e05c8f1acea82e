/** The flags of `finetune` for policies that learn from the rewards of what they write: TRL's names, and its defaults by task. */
import { ConfigError } from "../errors.ts";
import { bool, choice, float, int, show, text, type Values } from "./flags.ts";
import { PREFERENCE_DEFAULTS, PREFERENCE_LOSSES, REWARD_DEFAULTS } from "./preference_flags.ts";

/** What `--task` takes besides. */
export const ROLLOUT_TASKS = ["grpo", "rloo", "ppo"] as const;
export type RolloutTask = typeof ROLLOUT_TASKS[number];

export const isRolloutTask = (task: string): task is RolloutTask => (ROLLOUT_TASKS as readonly string[]).includes(task);

const all = ROLLOUT_TASKS, groups = ["grpo", "rloo"], grpo = ["grpo"], rloo = ["rloo"], ppo = ["ppo"];

/** What `--loss_type` takes for grpo. */
const POLICY_LOSSES = ["dapo", "grpo", "bnpo", "dr_grpo"] as const;

/** Each with the tasks that take it. */
const table = {
  reward: [
    {
      ...text(
        "",
        "what scores completions: a run with --task=reward, a Hugging Face folder, or a module that exports (prompt, completion) => number; " +
          "PATH,name=NAME,weight=W, and more of them after another comma or in a flag of their own",
      ),
      many: true,
    },
    all,
  ],
  reward_timeout: [float(30, "seconds after which a reward function is ended that does not answer", { above: 0 }), all],
  max_completion_length: [
    int(0, "the most tokens of a completion; 0: what the longest prompt leaves of the block size, at most 512", {
      min: 0,
    }),
    all,
  ],
  fixed_length: [
    bool(false, "whether every completion has max_completion_length: for a model without a token that ends a text"),
    all,
  ],
  temperature: [float(1, "of sampling, and of the log-probabilities", { above: 0 }), all],
  ref_model: [text("", "the model that KL is measured to; unless given, the one that init_from names"), [
    ...all,
    "dpo",
  ]],
  max_kl: [float(50, "stop when a text's KL to it passes so many nats; 0: never", { min: 0 }), all],
  beta: [float(0, "weight of KL to the reference model; RLOO 0.05, DPO 0.1", { min: 0 }), [...groups, "dpo"]],
  num_generations: [int(8, "completions of a prompt; RLOO 2", { min: 2 }), groups],
  num_iterations: [int(1, "how often the completions are learned from", { min: 1 }), groups],
  steps_per_generation: [
    int(0, "micro-batches that are written at once; 0: gradient_accumulation_steps", { min: 0 }),
    groups,
  ],
  epsilon: [float(0.2, "a ratio to the policy that wrote counts down to 1 − epsilon", { above: 0, below: 1 }), groups],
  epsilon_high: [float(0, "and up to 1 + epsilon_high; 0: as epsilon", { min: 0 }), groups],
  mask_truncated_completions: [bool(false, "whether nothing is learned from completions without an end"), groups],
  delta: [float(0, "with a negative advantage too a ratio counts up to delta; 0: without bound", { min: 0 }), grpo],
  scale_rewards: [choice(["group", "batch", "none"], "the deviation that advantages are divided by"), grpo],
  loss_type: [
    choice(
      [...POLICY_LOSSES, ...PREFERENCE_LOSSES],
      "of GRPO a mean over: dapo, bnpo: tokens; grpo: texts; dr_grpo: full lengths; of DPO (default sigmoid) what an answer's lead counts",
    ),
    ["grpo", "dpo"],
  ],
  importance_sampling_level: [choice(["token", "sequence"], "what a ratio is of; sequence is GSPO's"), grpo],
  use_bias_correction_kl: [bool(true, "whether KL counts by the ratio, which makes its gradient right"), grpo],
  normalize_advantages: [bool(false, "whether advantages get the mean 0 and the deviation 1"), rloo],
  num_ppo_epochs: [int(4, "how often the completions are learned from", { min: 1 }), ppo],
  num_mini_batches: [
    int(1, "updates of such an epoch; batch_size · gradient_accumulation_steps completions each", { min: 1 }),
    ppo,
  ],
  kl_coef: [float(0.05, "what a nat of KL to the reference model costs", { min: 0 }), ppo],
  kl_estimator: [choice(["k1", "k3"], "of a token's KL: k1 is log π − log ref, k3 is never below 0"), ppo],
  kl_target: [float(0, "nats a text that kl_coef is changed to hold; 0: it stays as it is", { min: 0 }), ppo],
  kl_horizon: [float(10000, "completions in which kl_coef changes by a fifth at most", { above: 0 }), ppo],
  cliprange: [
    float(0.2, "a ratio to the policy that wrote counts from 1 − cliprange to 1 + cliprange", { above: 0 }),
    ppo,
  ],
  cliprange_value: [float(0.2, "how far a value counts from what it was", { above: 0 }), ppo],
  vf_coef: [float(0.1, "weight of the values' loss", { min: 0 }), ppo],
  gamma: [float(1, "share of a reward that is left one token earlier", { min: 0, max: 1 }), ppo],
  lam: [float(0.95, "lambda of the advantages: 0 trusts the values, 1 the rewards", { min: 0, max: 1 }), ppo],
  whiten_rewards: [bool(false, "whether rewards are divided by their deviation"), ppo],
  whiten_advantages: [bool(true, "whether advantages get the mean 0 and the deviation 1"), ppo],
  score_at: [
    choice(["end", "behind"], "where the score counts: at the last token, or one place behind it, as in TRL"),
    ppo,
  ],
  missing_eos_penalty: [float(0, "what a completion loses that has no end", { min: 0 }), ppo],
  value_model: [
    text(
      "",
      "a model that begins as the value function, such as the reward model; unless given, a head on the policy's body",
    ),
    ppo,
  ],
  ptx_data: [text("", "a text file that the policy goes on learning beside (PPO-ptx)"), ppo],
  ptx_coef: [float(1, "weight of that text's loss", { min: 0 }), ppo],
  ptx_batch_size: [int(8, "blocks of that text in a micro-batch", { min: 1 }), ppo],
} as const;

type Table = typeof table;
type RolloutFlags = { readonly [K in keyof Table]: Table[K][0] };

export const rolloutFlags = Object.fromEntries(
  Object.entries(table).map(([name, [flag]]) => [name, flag]),
) as RolloutFlags;
export type RolloutValues = Values<RolloutFlags>;

/** What holds instead of the flags' own values, by task. */
export const TASK_DEFAULTS: Readonly<
  Record<string, Partial<RolloutValues> & { readonly learning_rate?: number; readonly log_interval?: number }>
> = {
  grpo: { learning_rate: 1e-6 },
  dpo: PREFERENCE_DEFAULTS,
  reward: REWARD_DEFAULTS,
  rloo: { learning_rate: 1e-6, beta: 0.05, num_generations: 2 },
  // An iteration has 4 updates, or 8, or 16, of which the first has clipped nothing yet: so lines are not of those alone.
  ppo: { learning_rate: 3e-6, temperature: 0.7, log_interval: 5 },
};

/** What a run has once and for all: a checkpoint may stand among the updates that learn from the same completions. */
export const ROLLOUT_FIXED = [
  ...Object.keys(rolloutFlags) as (keyof RolloutValues)[],
].filter((name) => !["reward", "reward_timeout", "max_kl", "ref_model", "value_model", "ptx_data"].includes(name));

/** @throws {ConfigError} for flags that say nothing of the task, or contradict each other */
export function checkRollouts(
  values: RolloutValues & {
    readonly task: string;
    readonly batch_size: number;
    readonly gradient_accumulation_steps: number;
  },
): void {
  const { task } = values, own = TASK_DEFAULTS[task] ?? {};
  for (const [name, [flag, tasks]] of Object.entries(table) as [keyof Table, Table[keyof Table]][]) {
    if ((tasks as readonly string[]).includes(task) || values[name] === (own[name] ?? flag.fallback)) continue;
    throw new ConfigError(`--${name}=${show(values[name])}: this is for --task=${tasks.join(" or ")}`);
  }
  if (!isRolloutTask(task)) return;
  if (!POLICY_LOSSES.some((loss) => loss === values.loss_type)) {
    throw new ConfigError(`--loss_type=${values.loss_type}: expected ${POLICY_LOSSES.join(", ")} for --task=grpo`);
  }
  parseRewards(values.reward);
  if (task === "ppo") return;
  const { batch_size, num_generations, gradient_accumulation_steps: updates } = values;
  const steps = values.steps_per_generation || updates, written = batch_size * steps;
  if (steps % updates !== 0) {
    throw new ConfigError(
      `--steps_per_generation=${steps}: expected a multiple of gradient_accumulation_steps, which is ${updates}`,
    );
  }
  if (written % num_generations !== 0) {
    throw new ConfigError(
      `--num_generations=${num_generations}: expected a divisor of the ${written} completions that are written at once (batch_size · steps_per_generation)`,
    );
  }
}

/** The same, with paths that mean the same in another folder. */
export const withPaths = (rewards: string, absolute: (path: string) => string): string =>
  rewards.split(",").map((part) => /^\s*((name|weight)=|$)/.test(part) ? part : absolute(part.trim())).join(",");

/** A reward that `--reward` names. */
export interface RewardFlag {
  readonly path: string;
  readonly name?: string;
  readonly weight: number;
}

/** @throws {ConfigError} when it names none, or says something else of one than name and weight */
export function parseRewards(text: string): RewardFlag[] {
  const rewards: { path: string; name?: string; weight: number }[] = [];
  for (const part of text.split(",").map((part) => part.trim()).filter(Boolean)) {
    const [, key, value] = /^(\w+)=(.+)$/.exec(part) ?? [], last = rewards.at(-1);
    const refuse = (why: string) => new ConfigError(`--reward=${text}: ${why}`);
    if (!key) rewards.push({ path: part, weight: 1 });
    else if (!last) throw refuse(`${part} comes before any path; expected PATH,${part}`);
    else if (key === "name") last.name = value;
    else if (key !== "weight") throw refuse(`${key} is not known; expected name or weight`);
    else if (!Number.isFinite(last.weight = Number(value))) throw refuse(`weight is ${value}; expected a number`);
  }
  if (rewards.length === 0) {
    throw new ConfigError(
      "--reward is missing: it names what scores completions, such as --reward=out-reward or --reward=short.ts,weight=0.5",
    );
  }
  return rewards;
}
