/** The flags of `finetune`: nanoGPT's names if nanoGPT has the option, otherwise TRL's names and defaults. */
import { ConfigError } from "../errors.ts";
import { type Declaration, taskCommand } from "./command.ts";
import { bool, choice, float, int, show, text, type Values } from "./flags.ts";
import { checkHeads, HEAD_FIXED, HEAD_TASKS, headFlags, isHeadTask } from "./head_flags.ts";
import { adapterRate, checkLora, LORA_FIXED, loraFlags } from "./lora_flags.ts";
import {
  checkPreferences,
  isPreferenceTask,
  PREFERENCE_FIXED,
  PREFERENCE_TASKS,
  preferenceFlags,
} from "./preference_flags.ts";
import {
  checkRollouts,
  isRolloutTask,
  ROLLOUT_FIXED,
  ROLLOUT_TASKS,
  rolloutFlags,
  TASK_DEFAULTS,
} from "./rollout_flags.ts";
import { rowFlags } from "./row_flags.ts";
import { deviceFlags, nativeFlag, PRETRAINED, torchFlags } from "./shared_flags.ts";
import { trainFlags } from "./train_flags.ts";

const { beta1, log_interval, always_save_checkpoint, eval_only, warmup_iters, grad_clip, seed } = trainFlags;

export const finetuneFlags = {
  out_dir: text("out-tuned", "the run folder: checkpoints, vocabulary, metrics"),
  task: choice(
    ["sft", ...HEAD_TASKS, ...PREFERENCE_TASKS, ...ROLLOUT_TASKS],
    "sft: write texts, or completions of prompts; classify: label texts; choose: pick the right continuation; entail, similar: label pairs of texts, as in GPT-1; dpo: learn from preferred and rejected answers; reward: train a reward model on preferences; grpo, rloo, ppo: learn from rewards for generated answers",
  ),
  data: text(
    "",
    "a file of rows to learn from: .jsonl, .json, .csv or .parquet; the command data prints them as tokens",
  ),
  eval_data: text("", "a file of rows to evaluate on; default: some rows of data are held out"),
  eval_share: float(0.1, "share of the rows that is held out if eval_data is not given", { above: 0, below: 1 }),
  init_from: text("", `the model to tune: ${PRETRAINED}; resume: continue from the last checkpoint in out_dir`),
  num_train_epochs: float(3, "passes over the rows", { above: 0 }),
  max_iters: int(0, "number of updates; 0: as many as num_train_epochs needs", { min: 0 }),
  eval_interval: int(0, "evaluate every this many updates; 0: once an epoch", { min: 0 }),
  eval_iters: int(0, "micro-batches of an evaluation, for each of train and val; 0: all held-out rows", { min: 0 }),
  eval_only,
  patience: int(0, "stop after this many evaluations in a row without a lower loss; 0: never", { min: 0 }),
  log_interval,
  always_save_checkpoint,
  ...rowFlags,
  packing: bool(false, "put several short rows into one sequence, without attention between them (sft)"),
  batch_size: int(8, "rows in a micro-batch", { min: 1 }),
  gradient_accumulation_steps: int(1, "micro-batches whose gradients are summed for one update", { min: 1 }),
  dropout: float(0, "share of activations dropped in training", { min: 0, below: 1 }),
  learning_rate: float(2e-5, "the highest learning rate", { min: 0 }),
  lr_scheduler_type: choice(
    ["linear", "cosine", "constant"],
    "how the learning rate decays to min_lr: linear or cosine; or constant",
  ),
  warmup_iters: { ...warmup_iters, fallback: 0 },
  min_lr: float(0, "the learning rate at the end", { min: 0 }),
  weight_decay: float(0, "AdamW's weight decay, for matrices and embeddings", { min: 0 }),
  beta1,
  beta2: { ...trainFlags.beta2, fallback: 0.999 },
  grad_clip,
  seed,
  ...headFlags,
  ...preferenceFlags,
  ...rolloutFlags,
  ...loraFlags,
  ...deviceFlags,
  ...nativeFlag,
  ...torchFlags,
};

export type FinetuneValues = Values<typeof finetuneFlags>;

export const finetuneDeclaration: Declaration<typeof finetuneFlags> = {
  name: "finetune",
  flags: finetuneFlags,
  words: "config",
  resumable: true,
  help: {
    does: "Fine-tunes a model for a task.",
    usage: "[CONFIG.ts] --task=sft --data=FILE --init_from=MODEL",
    notes:
      "A config file is a TypeScript module. Its default export is an object with the names below. Flags override the config\n" +
      "file. Some defaults depend on the task: --task=ppo --help shows ppo's defaults.\n\n",
  },
  defaults(given, config) {
    const { lora_rank, task = "sft" } = { ...config, ...given };
    return { ...TASK_DEFAULTS[task], ...lora_rank && { learning_rate: adapterRate(task) } };
  },
  check({ data, init_from, ...values }) {
    if (init_from !== "resume") checkTask(values); // a resumed run is checked after its flags are read
    const example = taskCommand("finetune", ["--task=sft", "--data=FILE.jsonl", "--init_from=gpt2"]);
    if (!init_from) {
      throw new ConfigError(`--init_from is missing: it names the model to tune, for example\n${example}`);
    }
    if (data || init_from === "resume") return;
    throw new ConfigError(`--data is missing: it names the file of rows to learn from, for example\n${example}`);
  },
};

/** Flags for `--task=sft` only. */
const SFT_FLAGS = ["packing", "completion_only_loss", "assistant_only_loss"] as const;
/** Flags that do not apply to rows of prompts. */
const ROW_FLAGS = ["max_length", "truncation"] as const;

/** Checks all flags. @throws {ConfigError} for flags that do not apply to the task, or contradict each other */
export function checkTask(values: Omit<FinetuneValues, "data" | "init_from">): void {
  checkLora(values);
  checkHeads(values);
  checkPreferences(values);
  checkRollouts(values);
  const isGiven = (name: keyof FinetuneValues) => values[name as "packing"] !== finetuneFlags[name].fallback;
  const refuse = (name: keyof FinetuneValues, why: string) => {
    throw new ConfigError(`--${name}=${show(values[name as "packing"])}: ${why}`);
  };
  const { task } = values, stray = task === "sft" ? undefined : SFT_FLAGS.find(isGiven);
  if (stray) refuse(stray, "this is only for --task=sft");
  if (isGiven("template") && isHeadTask(task)) refuse("template", "this is only for conversations");
  if (isGiven("truncation") && task === "reward") {
    refuse("truncation", "--task=reward skips rows with a longer text; leave the flag out");
  }
  if (isRolloutTask(task) || isPreferenceTask(task)) {
    const drops = (["dropout", "lora_dropout"] as const).find(isGiven);
    if (drops) refuse(drops, `--task=${task} trains without dropout; leave the flag out`);
  }
  const cut = isRolloutTask(task) ? ROW_FLAGS.find(isGiven) : undefined;
  if (cut) refuse(cut, `--task=${task} does not cut prompts; leave the flag out`);
}

/**
 * Flags that cannot change after a run has begun: they determine the order of rows, which rows are held out, and the
 * loss.
 */
export const FIXED = [
  "task",
  ...Object.keys(rowFlags) as (keyof typeof rowFlags)[],
  "packing",
  "eval_share",
  "seed",
  ...LORA_FIXED,
  ...HEAD_FIXED,
  ...PREFERENCE_FIXED,
  ...ROLLOUT_FIXED,
] as const;
