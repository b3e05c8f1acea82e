/** The flags of `finetune` for policies that learn from rewards, with TRL's names and its defaults for each task. */
import { ConfigError } from "../errors.ts";
import { bool, choice, float, int, show, text, type Values } from "./flags.ts";
import { PREFERENCE_DEFAULTS, PREFERENCE_LOSSES, REWARD_DEFAULTS } from "./preference_flags.ts";

/** The values of `--task` that learn from rewards. */
export const ROLLOUT_TASKS = ["grpo", "rloo", "ppo"] as const;
export type RolloutTask = typeof ROLLOUT_TASKS[number];

export const isRolloutTask = (task: string): task is RolloutTask => (ROLLOUT_TASKS as readonly string[]).includes(task);

const all = ROLLOUT_TASKS, groups = ["grpo", "rloo"], grpo = ["grpo"], rloo = ["rloo"], ppo = ["ppo"];

/** The values of `--loss_type` for grpo. */
const POLICY_LOSSES = ["dapo", "grpo", "bnpo", "dr_grpo"] as const;

/** The flags, each with the tasks that it applies to. */
const table = {
  reward: [
    {
      ...text(
        "",
        "what scores completions, as PATH or PATH,name=NAME,weight=W: a run of --task=reward, a Hugging Face folder, or a module whose " +
          "default export is (prompt, completion) => number; several rewards are separated by commas, or the flag is repeated",
      ),
      many: true,
    },
    all,
  ],
  reward_timeout: [float(30, "seconds that a reward function may take", { above: 0 }), all],
  max_completion_length: [
    int(
      0,
      "maximum number of tokens in a completion; 0: what the longest prompt leaves of the block size, at most 512",
      {
        min: 0,
      },
    ),
    all,
  ],
  fixed_length: [
    bool(false, "give every completion max_completion_length tokens, for a model without an end-of-text token"),
    all,
  ],
  temperature: [float(1, "temperature of sampling and of log-probabilities", { above: 0 }), all],
  ref_model: [text("", "the reference model, to which KL is measured; default: the model of init_from"), [
    ...all,
    "dpo",
  ]],
  max_kl: [
    float(50, "stop the run if a text's KL to the reference model exceeds this many nats; 0: never", { min: 0 }),
    all,
  ],
  beta: [float(0, "weight of the KL to the reference model; default 0.05 for rloo, 0.1 for dpo", { min: 0 }), [
    ...groups,
    "dpo",
  ]],
  num_generations: [int(8, "completions for each prompt; default 2 for rloo", { min: 2 }), groups],
  num_iterations: [int(1, "number of passes over the completions", { min: 1 }), groups],
  steps_per_generation: [
    int(0, "micro-batches of completions that are generated at once; 0: gradient_accumulation_steps", { min: 0 }),
    groups,
  ],
  epsilon: [float(0.2, "probability ratios are clipped at 1 − epsilon", { above: 0, below: 1 }), groups],
  epsilon_high: [float(0, "probability ratios are clipped at 1 + epsilon_high; 0: 1 + epsilon", { min: 0 }), groups],
  mask_truncated_completions: [
    bool(false, "do not learn from completions that were cut at the maximum length"),
    groups,
  ],
  delta: [float(0, "upper bound of the probability ratio if the advantage is negative; 0: no bound", { min: 0 }), grpo],
  scale_rewards: [
    choice(
      ["group", "batch", "none"],
      "advantages are divided by the standard deviation of the rewards of a group (one prompt) or of the whole batch; none: not divided",
    ),
    grpo,
  ],
  loss_type: [
    choice(
      [...POLICY_LOSSES, ...PREFERENCE_LOSSES],
      "in grpo, how the loss is averaged: dapo, bnpo: over tokens; grpo: over texts; dr_grpo: over full lengths; in dpo, the loss of a pair: sigmoid (the default), hinge, ipo or robust",
    ),
    ["grpo", "dpo"],
  ],
  importance_sampling_level: [
    choice(
      ["token", "sequence"],
      "token: a probability ratio for each token; sequence: one for each completion, as in GSPO",
    ),
    grpo,
  ],
  use_bias_correction_kl: [
    bool(true, "weight the KL by the probability ratio, which makes its gradient unbiased"),
    grpo,
  ],
  normalize_advantages: [bool(false, "scale advantages to mean 0 and standard deviation 1"), rloo],
  num_ppo_epochs: [int(4, "number of passes over the completions", { min: 1 }), ppo],
  num_mini_batches: [
    int(1, "updates in a pass; each uses batch_size · gradient_accumulation_steps completions", { min: 1 }),
    ppo,
  ],
  kl_coef: [float(0.05, "reward subtracted for each nat of KL to the reference model", { min: 0 }), ppo],
  kl_estimator: [choice(["k1", "k3"], "estimator of a token's KL: k1 is log π − log ref, k3 is never negative"), ppo],
  kl_target: [
    float(0, "adapt kl_coef so that a text's KL stays near this many nats; 0: kl_coef is constant", { min: 0 }),
    ppo,
  ],
  kl_horizon: [float(10000, "completions over which kl_coef changes by at most a fifth", { above: 0 }), ppo],
  cliprange: [
    float(0.2, "probability ratios are clipped at 1 − cliprange and 1 + cliprange", { above: 0 }),
    ppo,
  ],
  cliprange_value: [float(0.2, "values are clipped at this distance from their old values", { above: 0 }), ppo],
  vf_coef: [float(0.1, "weight of the value function's loss", { min: 0 }), ppo],
  gamma: [float(1, "discount of rewards for each token", { min: 0, max: 1 }), ppo],
  lam: [
    float(0.95, "lambda of generalised advantage estimation: 0 relies on the values, 1 on the rewards", {
      min: 0,
      max: 1,
    }),
    ppo,
  ],
  whiten_rewards: [bool(false, "divide rewards by their standard deviation"), ppo],
  whiten_advantages: [bool(true, "scale advantages to mean 0 and standard deviation 1"), ppo],
  score_at: [
    choice(
      ["end", "behind"], // deno-lint-ignore plain-words/words -- a value of the flag
      "where the score is added: end: at the last token; behind: one place after it, as in TRL",
    ),
    ppo,
  ],
  missing_eos_penalty: [float(0, "reward subtracted from completions without an end-of-text token", { min: 0 }), ppo],
  value_model: [
    text(
      "",
      "a model to initialise the value function with, such as the reward model; default: a head on the policy",
    ),
    ppo,
  ],
  ptx_data: [text("", "a text file to train on at the same time (PPO-ptx)"), ppo],
  ptx_coef: [float(1, "weight of the loss on ptx_data", { min: 0 }), ppo],
  ptx_batch_size: [int(8, "blocks of ptx_data in a micro-batch", { min: 1 }), ppo],
} as const;

type Table = typeof table;
type RolloutFlags = { readonly [K in keyof Table]: Table[K][0] };

/** The flags; the help of each begins with its tasks. */
export const rolloutFlags = Object.fromEntries(
  Object.entries(table).map(([name, [flag, tasks]]) => [name, { ...flag, help: `${tasks.join(", ")}: ${flag.help}` }]),
) as RolloutFlags;
export type RolloutValues = Values<RolloutFlags>;

/** The tasks' own defaults, which replace the flags' defaults. */
export const TASK_DEFAULTS: Readonly<
  Record<string, Partial<RolloutValues> & { readonly learning_rate?: number; readonly log_interval?: number }>
> = {
  grpo: { learning_rate: 1e-6 },
  dpo: PREFERENCE_DEFAULTS,
  reward: REWARD_DEFAULTS,
  rloo: { learning_rate: 1e-6, beta: 0.05, num_generations: 2 },
  // An iteration has 4, 8 or 16 updates, and nothing is clipped in its first update. With log_interval 5, the printed
  // lines are about other updates, too.
  ppo: { learning_rate: 3e-6, temperature: 0.7, log_interval: 5 },
};

/** Flags that cannot change after a run has begun: a checkpoint can be between two updates on the same completions. */
export const ROLLOUT_FIXED = [
  ...Object.keys(rolloutFlags) as (keyof RolloutValues)[],
].filter((name) => !["reward", "reward_timeout", "max_kl", "ref_model", "value_model", "ptx_data"].includes(name));

/** Checks these flags. @throws {ConfigError} for flags that do not apply to the task, or contradict each other */
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
    throw new ConfigError(`--${name}=${show(values[name])}: this is only for --task=${tasks.join(" or ")}`);
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
      `--steps_per_generation=${steps}: expected a multiple of gradient_accumulation_steps, ${updates}`,
    );
  }
  if (written % num_generations !== 0) {
    throw new ConfigError(
      `--num_generations=${num_generations}: expected a divisor of batch_size · steps_per_generation, ${written} completions`,
    );
  }
}

/** Returns the value of `--reward` with absolute paths. */
export const withPaths = (rewards: string, absolute: (path: string) => string): string =>
  rewards.split(",").map((part) => /^\s*((name|weight)=|$)/.test(part) ? part : absolute(part.trim())).join(",");

/** A reward that `--reward` names. */
export interface RewardFlag {
  readonly path: string;
  readonly name?: string;
  readonly weight: number;
}

/** Parses `--reward`. @throws {ConfigError} if it has no path, or settings other than name and weight */
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
      "--reward is missing: it names what scores completions, for example --reward=out-reward or --reward=short.ts,weight=0.5",
    );
  }
  return rewards;
}
