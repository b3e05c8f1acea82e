/** The flags of `finetune` for learning from preferences, with TRL's names and its defaults for each task. */
import { ConfigError } from "../errors.ts";
import type { PreferenceLoss } from "../finetune/dpo.ts";
import { bool, float, show, type Values } from "./flags.ts";

/** The values of `--task` that learn from preferences. */
export const PREFERENCE_TASKS = ["dpo", "reward"] as const;

/** The values of `--loss_type` for dpo. */
export const PREFERENCE_LOSSES = ["sigmoid", "hinge", "ipo", "robust"] as const satisfies readonly PreferenceLoss[];

export const isPreferenceTask = (task: string): boolean => (PREFERENCE_TASKS as readonly string[]).includes(task);

export const preferenceFlags = {
  label_smoothing: float(0, "dpo: assumed share of pairs whose preference is wrong", { min: 0, below: 0.5 }),
  reference_free: bool(false, "dpo: train without the reference model that keeps the policy near its first state"),
  precompute_ref_log_probs: bool(
    false,
    "dpo: run the reference model once before training instead of in each update",
  ),
  center_rewards_coefficient: float(
    0,
    "reward: weight of a loss that pulls the mean reward to 0; TRL recommends 0.01",
    {
      min: 0,
    },
  ),
};

export type PreferenceValues = Values<typeof preferenceFlags>;

/** The tasks' own defaults, which replace the flags' defaults. */
export const REWARD_DEFAULTS = { learning_rate: 1e-4 } as const;
export const PREFERENCE_DEFAULTS = { learning_rate: 1e-6, beta: 0.1, loss_type: "sigmoid" } as const;

/** Flags that cannot change after a run has begun. */
export const PREFERENCE_FIXED = Object.keys(preferenceFlags) as (keyof PreferenceValues)[];

/** Checks these flags. @throws {ConfigError} for flags that do not apply to the task, or contradict each other */
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
    if (values[name] !== preferenceFlags[name].fallback && task !== own) refuse(name, `this is only for --task=${own}`);
  }
  if (task !== "dpo") return;
  if (!PREFERENCE_LOSSES.some((loss) => loss === loss_type)) {
    refuse("loss_type", `expected ${PREFERENCE_LOSSES.join(", ")} for --task=dpo`);
  }
  if (beta === 0) refuse("beta", "expected a number above 0; to train without a reference, pass --reference_free=True");
  if (label_smoothing > 0 && (loss_type === "hinge" || loss_type === "ipo")) {
    refuse("label_smoothing", `the loss ${loss_type} has no smoothing; expected --loss_type=sigmoid or robust`);
  }
  if (!reference_free) return;
  if (ref_model) refuse("ref_model", "there is no reference with --reference_free=True");
  if (values.precompute_ref_log_probs) {
    refuse("precompute_ref_log_probs", "there is no reference with --reference_free=True");
  }
}
