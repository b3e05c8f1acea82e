/**
 * Between the CPU setting and the baby GPT: 3.2 million parameters with dropout, half an hour on two processor cores with
 * `deno task train:native`. docs/training.md shows its losses beside PyTorch's.
 */
import type { TrainConfig } from "./train_config.ts";
import babyGPT from "./train_shakespeare_char.ts";

const config: TrainConfig = {
  ...babyGPT,
  out_dir: "out-shakespeare-char-3m",
  // 50 batches of 32 × 128 tokens are 205 thousand tokens, nearly twice the validation text.
  eval_iters: 50,

  // 32 × 128 × 5,000 is 20 passes over the text.
  batch_size: 32,
  block_size: 128,
  n_layer: 4,
  n_head: 4,
  n_embd: 256,
};

export default config;
