/**
 * What a config file exports.
 *
 * ```ts
 * import type { TrainConfig } from "@nanogpt/ts/config";
 *
 * const config: TrainConfig = { input: "mine.txt", n_layer: 4, n_head: 4, n_embd: 128, max_iters: 2000 };
 * export default config;
 * ```
 *
 * `deno task train mine.ts` then trains with it.
 *
 * @module
 */

/** What a config file exports: train's flags, each by its name, those that it sets. `deno task train --help` says what they do. */
export interface TrainConfig {
  /** The run folder: checkpoints, vocabulary, metrics. */
  out_dir?: string;
  /** Iterations from one evaluation to the next. */
  eval_interval?: number;
  /** Iterations from one line with the loss to the next. */
  log_interval?: number;
  /** Batches that an evaluation averages over, for each split. */
  eval_iters?: number;
  /** Evaluate once and stop. */
  eval_only?: boolean;
  /** Save after every evaluation, not only after the best so far. */
  always_save_checkpoint?: boolean;
  /** `scratch`, `resume`, or a model to fine-tune. */
  init_from?: string;

  /** A folder with train.bin and val.bin, or its name in `data/`; `shakespeare_char`, `shakespeare`, `grammar`. */
  dataset?: string;
  /** A text file, instead of the dataset. */
  input?: string;
  /** What a text's tokens are: `character`, `gpt2`, … */
  tokenizer?: string;
  /** Micro-batches whose gradients make one update. */
  gradient_accumulation_steps?: number;
  /** Sequences in a micro-batch. */
  batch_size?: number;
  /** Tokens that the model looks back on. */
  block_size?: number;

  /** Transformer blocks. */
  n_layer?: number;
  /** Attention heads in each block. */
  n_head?: number;
  /** Width; a multiple of `n_head`. */
  n_embd?: number;
  /** Share of activations dropped in training, from 0 to below 1. */
  dropout?: number;
  /** Whether linear layers and layer norms have a bias. */
  bias?: boolean;

  /** The highest learning rate. */
  learning_rate?: number;
  /** Updates in all. */
  max_iters?: number;
  /** Decay of matrices and embeddings. */
  weight_decay?: number;
  /** Decay of AdamW's running mean of gradients. */
  beta1?: number;
  /** Decay of AdamW's running mean of squared gradients. */
  beta2?: number;
  /** Norm that gradients are clipped to; 0 leaves them as they are. */
  grad_clip?: number;
  /** Warm up, then decay the learning rate along a cosine. */
  decay_lr?: boolean;
  /** Iterations of warm-up. */
  warmup_iters?: number;
  /** Iteration at which `min_lr` is reached; usually `max_iters`. */
  lr_decay_iters?: number;
  /** The learning rate from there on; usually a tenth of `learning_rate`. */
  min_lr?: number;

  /** What `<|endoftext|>` and its like in a text are: an error, special tokens, or ordinary letters. */
  special_tokens?: "refuse" | "allow" | "text";
  /** Seeds weights, batches and dropout. */
  seed?: number;
  /** Where to compute; `auto` is the CPU. */
  device?: "auto" | "cpu" | "reference" | "webgpu" | "webgpu:software" | "webgpu:dawn" | "webgpu:dawn:software";
  /** Threads of the CPU device; 0 is one for each core. */
  threads?: number;
  /** Print at the end how long each kernel took. */
  profile?: boolean;
  /** Matrix products in machine code, on Linux with AVX-512; needs `--allow-ffi`. */
  native?: boolean;

  /** Of nanoGPT's config files: there is no torch.compile here. */
  compile?: false;
  /** In nanoGPT's config files; accepted and ignored: everything is computed in 32-bit floats. */
  dtype?: "float32";
  /** In nanoGPT's config files; accepted and ignored: nothing is logged to a service. */
  wandb_log?: false;
  /** In nanoGPT's config files; accepted and ignored. */
  wandb_project?: string;
  /** In nanoGPT's config files; accepted and ignored. */
  wandb_run_name?: string;
}
