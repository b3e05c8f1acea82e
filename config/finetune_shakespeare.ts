/**
 * GPT-2, trained further on Shakespeare: nanoGPT's config/finetune_shakespeare.py. What `deno task train --init_from=MODEL` does
 * where no config file is named.
 */
import type { TrainConfig } from "./train_config.ts";

const config: TrainConfig = {
  out_dir: "out-shakespeare",
  eval_interval: 5,
  eval_iters: 40,
  dataset: "shakespeare",
  // nanoGPT takes gpt2-xl, which a GPU of its day could hold; training it takes more memory than a CPU device has.
  init_from: "gpt2",
  always_save_checkpoint: false,

  // 1 sequence × 32 micro-batches × 1,024 tokens make 32,768 tokens an update; Shakespeare has 301,966, so 9 updates are an epoch.
  batch_size: 1,
  gradient_accumulation_steps: 32,
  max_iters: 20,

  learning_rate: 3e-5,
  decay_lr: false,
};

export default config;
