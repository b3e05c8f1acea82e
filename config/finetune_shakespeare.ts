/**
 * Fine-tunes GPT-2 on Shakespeare, as nanoGPT's config/finetune_shakespeare.py does. `deno task train --init_from=MODEL` uses
 * these values if no config file is given.
 */
import type { TrainConfig } from "./train_config.ts";

const config: TrainConfig = {
  out_dir: "out-shakespeare",
  eval_interval: 5,
  eval_iters: 40,
  dataset: "shakespeare",
  // nanoGPT fine-tunes gpt2-xl. Training gpt2-xl needs more than the 4 GiB of the CPU device.
  init_from: "gpt2",
  always_save_checkpoint: false,

  // 1 sequence × 32 micro-batches × 1,024 tokens = 32,768 tokens per update. Shakespeare has 301,966: 9 updates are an epoch.
  batch_size: 1,
  gradient_accumulation_steps: 32,
  max_iters: 20,

  learning_rate: 3e-5,
  decay_lr: false,
};

export default config;
