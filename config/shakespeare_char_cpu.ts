/**
 * The setting that nanoGPT's README gives for a laptop without a GPU: 0.8 million parameters, 2,000 updates, a few
 * minutes, a validation loss of about 1.88. `deno task train` uses these values if no config file is given.
 */
import type { TrainConfig } from "./train_config.ts";
import babyGPT from "./train_shakespeare_char.ts";

const config: TrainConfig = {
  ...babyGPT,
  out_dir: "out",
  // A less precise estimate of the loss than from 200 batches, in a tenth of the time.
  eval_iters: 20,

  batch_size: 12,
  block_size: 64,
  n_layer: 4,
  n_head: 4,
  n_embd: 128,
  // 12 × 64 tokens × 2,000 updates are 1.5 passes over the text: too few to overfit, so dropout is not needed.
  dropout: 0,

  max_iters: 2000,
  lr_decay_iters: 2000,
};

export default config;
