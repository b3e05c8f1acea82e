/** The flags of `finetune` for tuning on preferences: TRL's names, and its defaults by task. */
import { ConfigError } from "../errors.ts";
import type { PreferenceLoss } from "../finetune/dpo.ts";
import { bool, float, show, type Values } from "./flags.ts";

/** What `--task` takes besides. */
export const PREFERENCE_TASKS = ["dpo", "reward"] as const;

/** What `--loss_type` takes for them. */
export const PREFERENCE_LOSSES = ["sigmoid", "hinge", "ipo", "robust"] as const satisfies readonly PreferenceLoss[];

export const isPreferenceTask = (task: string): boolean => (PREFERENCE_TASKS as readonly string[]).includes(task);

export const preferenceFlags = {
  label_smoothing: float(0, "the share of pairs that are thought to be the wrong way round", { min: 0, below: 0.5 }),
  reference_free: bool(false, "whether nothing holds the policy near the model that it was"),
  precompute_ref_log_probs: bool(
    false,
    "whether the reference model runs once, before training, and not in each update",
  ),
  center_rewards_coefficient: float(
    0,
    "of --task=reward: how much rewards are drawn to 0 in the mean; TRL advises 0.01",
    {
      min: 0,
    },
  ),
};

export type PreferenceValues = Values<typeof preferenceFlags>;

/** What holds instead of the flags' own values. */
export const REWARD_DEFAULTS = { learning_rate: 1e-4 } as const;
export const PREFERENCE_DEFAULTS = { learning_rate: 1e-6, beta: 0.1, loss_type: "sigmoid" } as const;

/** What a run has once and for all. */
export const PREFERENCE_FIXED = Object.keys(preferenceFlags) as (keyof PreferenceValues)[];

/** @throws {ConfigError} for flags that say nothing of the task, or contradict each other */
export function checkPreferences(
  values: PreferenceValues & Readonly<Record<"task" | "loss_type" | "ref_model", string>> & {
    readonly beta: number;
  },
): void {
  const { task, loss_type, ref_model, reference_free, label_smoothing, beta } = values;
  const refuse = (name: keyof typeof values, why: string) => {
    throw new ConfigError(`--${name}=${show(values[name])}: ${why}`);
  };
  for (const name of PREFERENCE_FIXED) {
    const own = name === "center_rewards_coefficient" ? "reward" : "dpo";
    if (values[name] !== preferenceFlags[name].fallback && task !== own) refuse(name, `this is for --task=${own}`);
  }
  if (task !== "dpo") return;
  if (!PREFERENCE_LOSSES.some((loss) => loss === loss_type)) {
    refuse("loss_type", `expected ${PREFERENCE_LOSSES.join(", ")} for --task=dpo`);
  }
  if (beta === 0) refuse("beta", "expected a number above 0: without the reference's hold, --reference_free=True");
  if (label_smoothing > 0 && (loss_type === "hinge" || loss_type === "ipo")) {
    refuse("label_smoothing", `the loss ${loss_type} has none; expected --loss_type=sigmoid or robust`);
  }
  if (!reference_free) return;
  if (ref_model) refuse("ref_model", "there is no reference with --reference_free=True");
  if (values.precompute_ref_log_probs) {
    refuse("precompute_ref_log_probs", "there is no reference with --reference_free=True");
  }
}
