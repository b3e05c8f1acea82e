/**
 * What `train` can be told: nanoGPT's flags with train.py's defaults, and ours (`seed`, `input`, `threads`).
 *
 * Values come from the table, then the config file, then the flags. Without a config file the CPU setting of nanoGPT's
 * README stands in for it, because train.py's own defaults are for eight A100s.
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
  eval_interval: int(2000, "iterations from one evaluation to the next", { min: 1 }),
  log_interval: int(1, "iterations from one line with the loss to the next", { min: 1 }),
  eval_iters: int(200, "batches that an evaluation averages over, for each split", { min: 1 }),
  eval_only: bool(false, "evaluate once and stop"),
  always_save_checkpoint: bool(true, "save after every evaluation, not only after the best so far"),
  init_from: text(
    "scratch",
    `scratch: a new model; resume: the last checkpoint in out_dir; or, to fine-tune, ${PRETRAINED}`,
  ),
  dataset: text(
    "shakespeare_char",
    "a folder with train.bin and val.bin, or its name in data/; shakespeare_char, shakespeare; grammar: generated",
  ),
  input: text("", "a text file (UTF-8) to train on instead of the dataset"),
  tokenizer: text("", "what a text's tokens are: character, gpt2, …; unless given characters, for shakespeare gpt2's"),
  special_tokens: tokenizerFlags.special_tokens,
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
  ...nativeFlag,
  ...torchFlags,
  wandb_log: choice(
    [false],
    "only False: nothing is logged elsewhere",
    () => "metrics go to metrics.jsonl in out_dir; leave it False",
  ),
  wandb_project: text("", "taken for nanoGPT's config files, unused"),
  wandb_run_name: text("", "taken for nanoGPT's config files, unused"),
};

export type TrainValues = Values<typeof trainFlags>;
export type TrainRequest = Request<typeof trainFlags>;

// A config file's type is written out, for it imports nothing: each of its fields is a flag, and the other way round.
true satisfies TrainConfig extends Partial<TrainValues> ? Partial<TrainValues> extends TrainConfig ? true : false
  : false;
true satisfies keyof TrainValues extends keyof TrainConfig ? true : false;

export const trainDeclaration: Declaration<typeof trainFlags> = {
  name: "train",
  flags: trainFlags,
  words: "config",
  resumable: true,
  help: {
    does: "Trains a GPT on a text, or on a folder of tokens that prepare has made.",
    usage: "[config/NAME.ts]",
    notes:
      `A config is a module that exports an object with the names below; flags win over it. Without one, nanoGPT's setting for a
CPU holds. `,
  },
  defaults(given, config) {
    if (config) return {}; // nanoGPT's config files count on train.py's own values
    return isPretrained({ init_from: "scratch", ...given }) ? fineTuning : cpuSetting;
  },
  check({ n_embd, n_head }) {
    if (n_embd % n_head === 0) return;
    throw new ConfigError(`--n_embd=${n_embd} --n_head=${n_head}: the width must be a multiple of the number of heads`);
  },
};

/** Whether a run begins with the weights of a model from elsewhere. */
export const isPretrained = ({ init_from }: { readonly init_from: string }): boolean =>
  init_from !== "scratch" && init_from !== "resume";

/**
 * What is trained on, as far as somebody has named it: what is given now wins over a config file's, and that over a run's own.
 *
 * @param stored the flags that a run began with
 * @throws {ConfigError} where one place names two
 */
export function namedData({ config, given }: Pick<TrainRequest, "config" | "given">, stored: TrainConfig = {}): {
  input?: string;
  dataset?: string;
} {
  for (const { input, dataset } of [given, config]) {
    if (!input || dataset === undefined) continue;
    throw new ConfigError(`--input=${input} --dataset=${dataset}: both say what to train on; leave one of them out`);
  }
  // A config file that named the run's dataset when the run began names nothing new.
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
 * The values of a run that begins with a model's weights: its sizes, and where fewer tokens of context are asked for, so many.
 *
 * @throws {ConfigError} when a flag contradicts them
 */
export function fineTunedValues({ values, config, given }: TrainRequest, model: GPTConfig): TrainValues {
  const own = { n_layer: model.nLayer, n_head: model.nHead, n_embd: model.nEmbd, bias: model.bias };
  const refuse = (name: keyof TrainConfig, there: unknown, why: string) =>
    new ConfigError(
      `--${name}=${show(given[name])}: the model in ${values.init_from} has ${name}=${show(there)}, ${why}`,
    );
  for (const name of Object.keys(own) as (keyof typeof own)[]) {
    if (given[name] !== undefined && given[name] !== own[name]) throw refuse(name, own[name], "which cannot change");
  }
  if ((given.block_size ?? 0) > model.blockSize) throw refuse("block_size", model.blockSize, "and cannot have more");
  const asked = given.block_size ?? config.block_size ?? model.blockSize;
  return { ...values, ...own, block_size: Math.min(asked, model.blockSize) };
}

const fixed = ["n_layer", "n_head", "n_embd", "block_size", "bias", "tokenizer"] as const;

/**
 * The values of a run that goes on: those that it began with, under what the config file and the flags name now. A config
 * file's sizes give way to the run's own, as in nanoGPT; a flag that contradicts them is an error.
 *
 * @param stored the flags in the folder's run.json
 * @throws {CheckpointError}
 */
export function resumedValues(request: TrainRequest, stored: object): TrainValues {
  const { own, resumed } = goOn(request, stored, { flags: trainFlags, fixed, task: "train" });
  return Object.assign(resumed, namedData(request, own));
}

/**
 * The same for any command that goes on with runs.
 *
 * @param options.fixed flags that a run has once and for all
 * @returns also what it began with
 * @throws {CheckpointError}
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
    throw new CheckpointError(`${out_dir} is a run of ${other}, and ${task} cannot go on with it; type ${words}`);
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
        }, which cannot change`,
      );
    }
    Object.assign(resumed, { [name]: there });
  }
  return { own, resumed };
}

/** The command that goes on with a run of `name` that was started with `args`. */
export function resumeCommand(args: string[], out_dir: string, name: "train" | "finetune" = "train"): string {
  const kept = args.filter((arg) => !/^--((init_from|out_dir)=|native$)/.test(arg));
  const dawn = args.some((arg) => arg.startsWith("--device=webgpu:dawn"));
  const task = dawn ? `${name}:dawn` : args.includes("--native") ? `${name}:native` : name;
  return taskCommand(task, [...kept, "--init_from=resume", `--out_dir=${out_dir}`]);
}
