/**
 * What `train` can be told: nanoGPT's flags with train.py's defaults, and ours (`seed`, `input`, `threads`).
 *
 * Values come from the table, then the config file, then the flags. Without a config file the CPU setting of nanoGPT's
 * README stands in for it, because train.py's own defaults are for eight A100s.
 */
import cpuSetting from "../../config/shakespeare_char_cpu.ts";
import { ConfigError } from "../errors.ts";
import { loadConfig } from "./config_file.ts";
import {
  bool,
  checkValues,
  choice,
  describeFlags,
  fallbacks,
  float,
  int,
  parseCommandLine,
  text,
  type Values,
} from "./flags.ts";
import { deviceFlags, refuseGPT2, torchFlags } from "./shared_flags.ts";

export const trainFlags = {
  out_dir: text("out", "the run folder: checkpoints, vocabulary, metrics"),
  eval_interval: int(2000, "iterations from one evaluation to the next", { min: 1 }),
  log_interval: int(1, "iterations from one line with the loss to the next", { min: 1 }),
  eval_iters: int(200, "batches that an evaluation averages over, for each split", { min: 1 }),
  eval_only: bool(false, "evaluate once and stop"),
  always_save_checkpoint: bool(true, "save after every evaluation, not only after the best so far"),
  init_from: choice(["scratch", "resume"], "a new model, or the last checkpoint in out_dir", refuseGPT2),
  dataset: choice(
    ["shakespeare_char"],
    "the text where no input is named: tiny Shakespeare",
    (value) =>
      value.startsWith("openwebtext") || value === "shakespeare"
        ? "GPT-2's tokens are not in this version; name a text file with --input to train on its characters"
        : undefined,
  ),
  input: text("", "a text file (UTF-8) to train on instead"),
  gradient_accumulation_steps: int(40, "micro-batches whose gradients make one update", { min: 1 }),
  batch_size: int(12, "sequences in a micro-batch", { min: 1 }),
  block_size: int(1024, "tokens that the model looks back on", { min: 1 }),
  n_layer: int(12, "transformer blocks", { min: 1 }),
  n_head: int(12, "attention heads in each", { min: 1 }),
  n_embd: int(768, "width; a multiple of n_head", { min: 1 }),
  dropout: float(0, "share of activations dropped in training", { min: 0, below: 1 }),
  bias: bool(false, "bias in linear layers and layer norms"),
  learning_rate: float(6e-4, "the highest learning rate", { min: 0 }),
  max_iters: int(600000, "updates in all", { min: 0 }),
  weight_decay: float(0.1, "decay of matrices and embeddings", { min: 0 }),
  beta1: float(0.9, "AdamW's running mean of gradients", { min: 0, below: 1 }),
  beta2: float(0.95, "AdamW's running mean of their squares", { min: 0, below: 1 }),
  grad_clip: float(1, "norm that gradients are clipped to; 0 leaves them", { min: 0 }),
  decay_lr: bool(true, "warm up, then decay the learning rate along a cosine"),
  warmup_iters: int(2000, "iterations of warm-up", { min: 0 }),
  lr_decay_iters: int(600000, "iteration at which min_lr is reached; usually max_iters", { min: 0 }),
  min_lr: float(6e-5, "the learning rate from there on; usually a tenth", { min: 0 }),
  seed: int(1337, "seeds weights, batches and dropout", { min: 0, max: 2 ** 32 - 1 }),
  ...deviceFlags,
  ...torchFlags,
  wandb_log: choice([false], "only False", () => "metrics go to metrics.jsonl in out_dir; leave it False"),
  wandb_project: text("", "taken for nanoGPT's config files, unused"),
  wandb_run_name: text("", "taken for nanoGPT's config files, unused"),
};

export type TrainValues = Values<typeof trainFlags>;
/** What a config file exports. */
export type TrainConfig = Partial<TrainValues>;

/** What the user asked for: help, or a run. */
export interface TrainRequest {
  help?: string;
  values: TrainValues;
  /** The part of `values` that the config file and the flags name; where a run is resumed, the rest is the run's own. */
  named: TrainConfig;
}

/** @throws {ConfigError} */
export async function parseTrain(args: string[]): Promise<TrainRequest> {
  const { given, words, help } = parseCommandLine(trainFlags, args);
  if (words.length > 1) {
    throw new ConfigError(`${words[1]}: one config file is enough, and flags are written --name=value`);
  }
  const config = words.length === 1 ? checkValues(trainFlags, await loadConfig(words[0]), words[0]) : undefined;
  const named = { ...config, ...given };
  const base = config ?? cpuSetting;
  const values = { ...fallbacks(trainFlags), ...base, ...named };
  if (!help) checkTogether(values);
  return { values, named, ...(help && { help: trainHelp(values) }) };
}

/** Checks that need more than one value. @throws {ConfigError} */
export function checkTogether({ n_embd, n_head }: Pick<TrainValues, "n_embd" | "n_head">): void {
  if (n_embd % n_head !== 0) {
    throw new ConfigError(`--n_embd=${n_embd} --n_head=${n_head}: the width must be a multiple of the number of heads`);
  }
}

function trainHelp(values: TrainValues): string {
  return `Trains a GPT on the characters of a text.

  deno task train [config/NAME.ts] [--flag=value …]

Flags, with the values that hold where they are not given:

${describeFlags(trainFlags, values)}`;
}
