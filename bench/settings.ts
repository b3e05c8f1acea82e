/** The models that benchmarks measure, made from the config files for training them. */
import cpuConfig from "../config/shakespeare_char_cpu.ts";
import babyConfig from "../config/train_shakespeare_char.ts";
import { fallbacks } from "../src/cli/flags.ts";
import { modelConfig, optionsOf } from "../src/cli/train_command.ts";
import type { TrainConfig } from "../config/train_config.ts";
import { trainFlags } from "../src/cli/train_flags.ts";
import type { Setting } from "./measures.ts";

const SMALL: TrainConfig = {
  ...{ n_layer: 1, n_head: 2, n_embd: 16, block_size: 16, batch_size: 2 },
  ...{ max_iters: 20, eval_interval: 10, eval_iters: 2 },
};

/**
 * Values of all training flags: the defaults, overridden by a config file. `small` makes the model tiny, to test that a
 * benchmark runs.
 */
export function trainValues(config: TrainConfig, small: boolean) {
  return { ...fallbacks(trainFlags), ...config, ...(small && SMALL) };
}

/** The setting of a config file, for tiny Shakespeare's vocabulary of 65 characters, or for `vocabSize` tokens. */
function setting(name: string, config: TrainConfig, { small = false, vocabSize = 65 } = {}): Setting {
  const values = trainValues(config, small), { batchSize, logInterval } = optionsOf(values);
  return { name, model: { ...modelConfig(values), vocabSize: small ? 65 : vocabSize }, batchSize, logInterval };
}

export interface Changes {
  readonly small: boolean;
  /** The loss is read every `log_interval` steps. Default: the interval in the config file. */
  readonly log_interval?: number;
  readonly dropout?: number;
}

export function babyGPT({ small, ...changes }: Changes): Setting {
  return setting("baby GPT", { ...babyConfig, ...changes }, { small });
}

export function cpuSetting({ small, ...changes }: Changes): Setting {
  return setting("nanoGPT's CPU setting", { ...cpuConfig, ...changes }, { small });
}

/**
 * The default model of nanoGPT's train.py, with 124 million parameters, but with small batches of short texts. 50304 is
 * GPT-2's vocabulary size padded to a multiple of 64.
 */
export function gpt2({ small, ...changes }: Changes): Setting {
  const little = { batch_size: 4, block_size: 64, gradient_accumulation_steps: 1 };
  return setting("GPT-2 (124M)", { ...little, ...changes }, { small, vocabSize: 50304 });
}
