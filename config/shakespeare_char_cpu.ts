/**
 * The setting that nanoGPT's README gives for a laptop without a GPU: 0.8 million parameters, 2,000 updates, a few
 * minutes, a validation loss of about 1.88. What `deno task train` does where no config file is named.
 */
import type { TrainConfig } from "./train_config.ts";
import babyGPT from "./train_shakespeare_char.ts";

const config: TrainConfig = {
  ...babyGPT,
  out_dir: "out",
  // A rougher estimate of the loss than 200 batches give, in a tenth of the time.
  eval_iters: 20,

  batch_size: 12,
  block_size: 64,
  n_layer: 4,
  n_head: 4,
  n_embd: 128,
  // 12 × 64 × 2,000 is 1.5 passes over the text: too few to overfit, so nothing has to be dropped.
  dropout: 0,

  max_iters: 2000,
  lr_decay_iters: 2000,
};

export default config;
