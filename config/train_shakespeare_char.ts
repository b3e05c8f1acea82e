/**
 * The "baby GPT" of nanoGPT's config/train_shakespeare_char.py: the same values, 10.7 million parameters on the
 * characters of tiny Shakespeare. In nanoGPT it reaches a validation loss of 1.47 in three minutes on an A100. On two CPU
 * cores, training takes about nine hours.
 */
import type { TrainConfig } from "./train_config.ts";

const config: TrainConfig = {
  out_dir: "out-shakespeare-char",
  // The model soon overfits one megabyte of text, so evaluate often, and save only if the validation loss improves.
  eval_interval: 250,
  eval_iters: 200,
  log_interval: 10,
  always_save_checkpoint: false,

  dataset: "shakespeare_char",
  // 64 × 256 = 16,384 tokens per update: enough without gradient accumulation.
  gradient_accumulation_steps: 1,
  batch_size: 64,
  block_size: 256,

  n_layer: 6,
  n_head: 6,
  n_embd: 384,
  // 5,000 updates are about 80 passes over the text; without dropout the model would overfit long before the end.
  dropout: 0.2,

  // A small model can be trained at a higher rate than train.py's 6e-4, which is for 124 million parameters.
  learning_rate: 1e-3,
  min_lr: 1e-4,
  max_iters: 5000,
  lr_decay_iters: 5000,
  warmup_iters: 100,
  // An update has few tokens, so its squared gradients are noisy: average them over 100 updates (0.99), not 20 (0.95).
  beta2: 0.99,
};

export default config;
