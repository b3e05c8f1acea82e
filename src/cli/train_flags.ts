/**
 * The flags of `train`: nanoGPT's, with train.py's defaults, and our own (`seed`, `input`, `threads`).
 *
 * Flags override the config file, and the config file overrides the table's defaults. Without a config file, the
 * settings for a CPU in nanoGPT's README are used, because train.py's own defaults are for eight A100s.
 */
import fineTuning from "../../config/finetune_shakespeare.ts";
import cpuSetting from "../../config/shakespeare_char_cpu.ts";
import type { TrainConfig } from "../../config/train_config.ts";
import { CheckpointError, ConfigError } from "../errors.ts";
import { type Declaration, type Request, taskCommand } from "./command.ts";
import type { GPTConfig } from "../gpt.ts";
import { bool, checkValues, choice, fallbacks, type FlagTable, float, int, show, text, type Values } from "./flags.ts";
import { deviceFlags, nativeFlag, PRETRAINED, tokenizerFlags, torchFlags } from "./shared_flags.ts";

export const trainFlags = {
  out_dir: text("out", "the run folder: checkpoints, vocabulary, metrics"),
  eval_interval: int(2000, "evaluate every this many iterations", { min: 1 }),
  log_interval: int(1, "print the loss every this many iterations", { min: 1 }),
  eval_iters: int(200, "batches that an evaluation averages over, for each of train and val", { min: 1 }),
  eval_only: bool(false, "evaluate once and stop, without training"),
  always_save_checkpoint: bool(
    true,
    "save after every evaluation; False: only if the validation loss is the lowest so far",
  ),
  init_from: text(
    "scratch",
    `scratch: a new model; resume: continue from the last checkpoint in out_dir; or a model to fine-tune: ${PRETRAINED}`,
  ),
  dataset: text(
    "shakespeare_char",
    "a folder with train.bin and val.bin, or its name in data/; or shakespeare_char, shakespeare, grammar (generated text)",
  ),
  input: text("", "a text file (UTF-8) to train on instead of the dataset"),
  tokenizer: text(
    "",
    "how a text becomes tokens: character, gpt2, cl100k_base, o200k_base, or a folder with a tokenizer; default: character, or gpt2 for shakespeare",
  ),
  special_tokens: tokenizerFlags.special_tokens,
  gradient_accumulation_steps: int(40, "micro-batches whose gradients are summed for one update", { min: 1 }),
  batch_size: int(12, "sequences in a micro-batch", { min: 1 }),
  block_size: int(1024, "context length: the most tokens that the model sees at once", { min: 1 }),
  n_layer: int(12, "transformer blocks", { min: 1 }),
  n_head: int(12, "attention heads in each block", { min: 1 }),
  n_embd: int(768, "width of the embeddings; a multiple of n_head", { min: 1 }),
  dropout: float(0, "share of activations dropped in training", { min: 0, below: 1 }),
  bias: bool(false, "bias in linear layers and layer norms"),
  learning_rate: float(6e-4, "the highest learning rate", { min: 0 }),
  max_iters: int(600000, "the last iteration, counted from 0 as in nanoGPT", { min: 0 }),
  weight_decay: float(0.1, "AdamW's weight decay, for matrices and embeddings", { min: 0 }),
  beta1: float(0.9, "AdamW's decay of the running mean of gradients", { min: 0, below: 1 }),
  beta2: float(0.95, "AdamW's decay of the running mean of squared gradients", { min: 0, below: 1 }),
  grad_clip: float(1, "largest norm of the gradients, which are scaled down to it; 0: no clipping", { min: 0 }),
  decay_lr: bool(true, "warm up, then decay the learning rate along a cosine; False: a constant rate"),
  warmup_iters: int(2000, "iterations of warm-up", { min: 0 }),
  lr_decay_iters: int(600000, "iteration at which the learning rate reaches min_lr; usually max_iters", { min: 0 }),
  min_lr: float(6e-5, "the learning rate after lr_decay_iters; usually learning_rate / 10", { min: 0 }),
  seed: int(1337, "seeds weights, batches and dropout", { min: 0, max: 2 ** 32 - 1 }),
  ...deviceFlags,
  ...nativeFlag,
  ...torchFlags,
  wandb_log: choice(
    [false],
    "only False is valid: this program does not log to wandb",
    () => "metrics go to metrics.jsonl in out_dir; leave it False",
  ),
  wandb_project: text("", "ignored; accepted because nanoGPT's config files set it"),
  wandb_run_name: text("", "ignored; accepted because nanoGPT's config files set it"),
};

export type TrainValues = Values<typeof trainFlags>;
export type TrainRequest = Request<typeof trainFlags>;

// The type of config files imports nothing, so it repeats the flags. These two lines check that the fields are exactly
// the flags.
true satisfies TrainConfig extends Partial<TrainValues> ? Partial<TrainValues> extends TrainConfig ? true : false
  : false;
true satisfies keyof TrainValues extends keyof TrainConfig ? true : false;

export const trainDeclaration: Declaration<typeof trainFlags> = {
  name: "train",
  flags: trainFlags,
  words: "config",
  resumable: true,
  help: {
    does: "Trains a GPT on a text, or on a folder with train.bin and val.bin that the command prepare wrote.",
    usage: "[config/NAME.ts]",
    notes:
      `A config file is a TypeScript module. Its default export is an object with the names below. Flags override the config file.
Without a config file, train uses nanoGPT's settings for a CPU.

`,
  },
  defaults(given, config) {
    if (config) return {}; // nanoGPT's config files rely on train.py's defaults
    return isPretrained({ init_from: "scratch", ...given }) ? fineTuning : cpuSetting;
  },
  check({ n_embd, n_head }) {
    if (n_embd % n_head === 0) return;
    throw new ConfigError(`--n_embd=${n_embd} --n_head=${n_head}: the width must be a multiple of the number of heads`);
  },
};

/** Whether a run begins with the weights of another model. */
export const isPretrained = ({ init_from }: { readonly init_from: string }): boolean =>
  init_from !== "scratch" && init_from !== "resume";

/**
 * The data to train on, if the user named any: a flag overrides the config file, and the config file overrides the
 * run's flags.
 *
 * @param stored the flags with which the run began
 * @throws {ConfigError} if the flags, or the config file, name both an input and a dataset
 */
export function namedData({ config, given }: Pick<TrainRequest, "config" | "given">, stored: TrainConfig = {}): {
  input?: string;
  dataset?: string;
} {
  for (const { input, dataset } of [given, config]) {
    if (!input || dataset === undefined) continue;
    throw new ConfigError(`--input=${input} --dataset=${dataset}: both name the data to train on; leave one out`);
  }
  // A dataset in the config file does not count if the run began with the same dataset.
  const named = [
    given,
    config.dataset === stored.dataset ? { input: config.input } : config,
    given.input === "" ? { dataset: stored.dataset } : stored,
  ];
  const place = named.find(({ input, dataset }) => input || dataset !== undefined);
  if (place?.input) return { input: place.input };
  return place ? { input: "", dataset: place.dataset } : {};
}

/**
 * The values of a run that begins with a model's weights: the model's sizes, with a smaller block size if the user asks
 * for one.
 *
 * @throws {ConfigError} if a flag contradicts the model's sizes
 */
export function fineTunedValues({ values, config, given }: TrainRequest, model: GPTConfig): TrainValues {
  const own = { n_layer: model.nLayer, n_head: model.nHead, n_embd: model.nEmbd, bias: model.bias };
  const refuse = (name: keyof TrainConfig, there: unknown, why: string) =>
    new ConfigError(
      `--${name}=${show(given[name])}: the model in ${values.init_from} has ${name}=${show(there)}, ${why}`,
    );
  for (const name of Object.keys(own) as (keyof typeof own)[]) {
    if (given[name] !== undefined && given[name] !== own[name]) {
      throw refuse(name, own[name], "which cannot be changed");
    }
  }
  if ((given.block_size ?? 0) > model.blockSize) throw refuse("block_size", model.blockSize, "which cannot grow");
  const asked = given.block_size ?? config.block_size ?? model.blockSize;
  return { ...values, ...own, block_size: Math.min(asked, model.blockSize) };
}

const fixed = ["n_layer", "n_head", "n_embd", "block_size", "bias", "tokenizer"] as const;

/**
 * The values of a resumed run: the values with which it began, overridden by the config file and the flags. Sizes in
 * the config file are ignored, as in nanoGPT; a flag that contradicts the run's sizes is an error.
 *
 * @param stored the flags in the folder's run.json
 * @throws {CheckpointError}
 */
export function resumedValues(request: TrainRequest, stored: object): TrainValues {
  const { own, resumed } = goOn(request, stored, { flags: trainFlags, fixed, task: "train" });
  return Object.assign(resumed, namedData(request, own));
}

/**
 * The values of a resumed run, for `train` and `finetune`.
 *
 * @param options.fixed flags that cannot change after a run has begun
 * @returns the values, and the flags with which the run began
 * @throws {CheckpointError} if the run is of the other command, its run.json is not valid, or a flag changes a fixed
 *   value
 */
export function goOn<T extends FlagTable>(
  { values: { out_dir }, config, given }: Request<T> & { readonly values: { readonly out_dir: string } },
  stored: object,
  { flags, fixed, task }: {
    readonly flags: T;
    readonly fixed: readonly (keyof T & string)[];
    readonly task: "train" | "finetune";
  },
): { own: Partial<Values<T>>; resumed: Values<T> } {
  const other = "task" in stored ? "finetune" : "train";
  if (other !== task) {
    const words = taskCommand(other, ["--init_from=resume", `--out_dir=${out_dir}`]);
    throw new CheckpointError(`${out_dir} is a run of ${other}, which ${task} cannot resume; type ${words}`);
  }
  let own: Partial<Values<T>>;
  try {
    own = checkValues(flags, stored, `${out_dir}/run.json`);
  } catch (error) {
    throw error instanceof ConfigError ? new CheckpointError(error.message) : error;
  }
  const resumed = { ...fallbacks(flags), ...own, ...config, ...given, out_dir, init_from: "resume" };
  for (const name of fixed) {
    const there = own[name] ?? fallbacks(flags)[name];
    if (given[name] !== undefined && given[name] !== there) {
      throw new CheckpointError(
        `--${name}=${show(given[name])}: the ${task === "train" ? "model" : "run"} in ${out_dir} has ${name}=${
          show(there)
        }, which cannot be changed`,
      );
    }
    Object.assign(resumed, { [name]: there });
  }
  return { own, resumed };
}

/** The shell command that resumes a run of the command `name`, which was started with `args`. */
export function resumeCommand(args: string[], out_dir: string, name: "train" | "finetune" = "train"): string {
  const kept = args.filter((arg) => !/^--((init_from|out_dir)=|native$)/.test(arg));
  const dawn = args.some((arg) => arg.startsWith("--device=webgpu:dawn"));
  const task = dawn ? `${name}:dawn` : args.includes("--native") ? `${name}:native` : name;
  return taskCommand(task, [...kept, "--init_from=resume", `--out_dir=${out_dir}`]);
}
