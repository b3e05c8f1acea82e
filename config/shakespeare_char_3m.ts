/**
 * A character model of 3.2 million parameters with dropout, between `shakespeare_char_cpu.ts` and `train_shakespeare_char.ts`
 * in size. `deno task train:native` trains it in half an hour on two processor cores.
 * docs/training.md shows its losses next to PyTorch's.
 */
import type { TrainConfig } from "./train_config.ts";
import babyGPT from "./train_shakespeare_char.ts";

const config: TrainConfig = {
  ...babyGPT,
  out_dir: "out-shakespeare-char-3m",
  // 50 batches of 32 × 128 tokens are 205 thousand tokens, nearly twice as many as the validation text has.
  eval_iters: 50,

  // 32 × 128 tokens × 5,000 updates are 20 passes over the text.
  batch_size: 32,
  block_size: 128,
  n_layer: 4,
  n_head: 4,
  n_embd: 256,
};

export default config;
