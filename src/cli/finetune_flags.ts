/** The flags of `finetune`: nanoGPT's names where nanoGPT has the option, else TRL's, with TRL's defaults. */
import { ConfigError } from "../errors.ts";
import { type Declaration, taskCommand } from "./command.ts";
import { bool, choice, float, int, show, text, type Values } from "./flags.ts";
import { checkHeads, HEAD_FIXED, HEAD_TASKS, headFlags, isHeadTask } from "./head_flags.ts";
import { checkLora, LORA_FIXED, LORA_RATES, loraFlags } from "./lora_flags.ts";
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
    "sft: learn to write the completions of prompts, or texts; classify: labels of texts; choose: which choice goes on; entail, similar: labels of two texts, GPT-1's way; dpo: which of two answers is preferred; reward: a number for each answer, by which the preferred ones are more; grpo, rloo, ppo: answers to prompts that are rewarded",
  ),
  data: text("", "the rows to learn from: .jsonl, .json, .csv or .parquet; deno task data FILE shows them"),
  eval_data: text("", "the rows to evaluate on; unless given, some of data's are held out"),
  eval_share: float(0.1, "the share of the rows that is held out", { above: 0, below: 1 }),
  init_from: text("", `the model to tune: ${PRETRAINED}; resume: go on with the last checkpoint in out_dir`),
  num_train_epochs: float(3, "passes over the rows", { above: 0 }),
  max_iters: int(0, "updates in all; 0: as many as num_train_epochs takes", { min: 0 }),
  eval_interval: int(0, "updates from one evaluation to the next; 0 is an epoch", { min: 0 }),
  eval_iters: int(0, "micro-batches of an evaluation, for each split; 0 is all of the held-out rows", { min: 0 }),
  eval_only,
  patience: int(0, "stop after so many evaluations without a lower loss; 0: never", { min: 0 }),
  log_interval,
  always_save_checkpoint,
  ...rowFlags,
  packing: bool(false, "lay short rows side by side in one; they do not see each other"),
  batch_size: int(8, "rows in a micro-batch", { min: 1 }),
  gradient_accumulation_steps: int(1, "micro-batches whose gradients make one update", { min: 1 }),
  dropout: float(0, "share of activations dropped in training", { min: 0, below: 1 }),
  learning_rate: float(2e-5, "the highest learning rate", { min: 0 }),
  lr_scheduler_type: choice(["linear", "cosine", "constant"], "linear or cosine: down to min_lr; or constant"),
  warmup_iters: { ...warmup_iters, fallback: 0 },
  min_lr: float(0, "the learning rate at the end", { min: 0 }),
  weight_decay: float(0, "decay of matrices and embeddings", { min: 0 }),
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
    does: "Tunes a model to a task.",
    usage: "[CONFIG.ts] --task=sft --data=FILE --init_from=MODEL",
    notes: "A config is a module that exports an object with the names below; flags win over it. ",
  },
  defaults(given, config) {
    const { lora_rank, task = "sft" } = { ...config, ...given };
    const own: Partial<FinetuneValues> = TASK_DEFAULTS[task] ?? {}, { learning_rate } = own;
    return lora_rank ? { ...own, ...learning_rate ? { learning_rate: 10 * learning_rate } : LORA_RATES } : own;
  },
  check({ data, init_from, ...values }) {
    if (init_from !== "resume") checkTask(values); // else with the run's own
    const example = taskCommand("finetune", ["--task=sft", "--data=FILE.jsonl", "--init_from=gpt2"]);
    if (!init_from) throw new ConfigError(`--init_from is missing: it names the model to tune, as in\n${example}`);
    if (data || init_from === "resume") return;
    throw new ConfigError(`--data is missing: it names the file with the rows to learn, as in\n${example}`);
  },
};

/** Of supervised tuning alone; and what rows of prompts have no use for. */
const SFT_FLAGS = ["packing", "completion_only_loss", "assistant_only_loss"] as const;
const ROW_FLAGS = ["max_length", "truncation"] as const;

/** @throws {ConfigError} for flags that say nothing of the task, or contradict each other */
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
  if (stray) refuse(stray, "this is for --task=sft");
  if (isGiven("template") && isHeadTask(task)) refuse("template", "this is for conversations");
  if (isGiven("truncation") && task === "reward") {
    refuse("truncation", "longer texts are left out in --task=reward; leave the flag out");
  }
  if (isRolloutTask(task) || isPreferenceTask(task)) {
    const drops = (["dropout", "lora_dropout"] as const).find(isGiven);
    if (drops) refuse(drops, `dropout is off in --task=${task}; leave the flag out`);
  }
  const cut = isRolloutTask(task) ? ROW_FLAGS.find(isGiven) : undefined;
  if (cut) refuse(cut, `prompts are not cut in --task=${task}; leave the flag out`);
}

/** What a run has once and for all: its place in an epoch, its held-out rows or its loss would mean something else. */
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
