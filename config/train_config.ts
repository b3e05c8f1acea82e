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

/** What a config file exports: values for flags of `deno task train`, by their names. Every field is optional. */
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
  /** Save after every evaluation; false: only if the validation loss is the lowest so far. */
  always_save_checkpoint?: boolean;
  /** `scratch`, `resume`, or a model to fine-tune. */
  init_from?: string;

  /** A folder with train.bin and val.bin, or its name in `data/`; `shakespeare_char`, `shakespeare`, `grammar`. */
  dataset?: string;
  /** A text file (UTF-8) to train on instead of the dataset. */
  input?: string;
  /** How a text becomes tokens: `character`, `gpt2`, … */
  tokenizer?: string;
  /** Micro-batches whose gradients are summed for one update. */
  gradient_accumulation_steps?: number;
  /** Sequences in a micro-batch. */
  batch_size?: number;
  /** Context length: the most tokens that the model sees at once. */
  block_size?: number;

  /** Transformer blocks. */
  n_layer?: number;
  /** Attention heads in each block. */
  n_head?: number;
  /** Width of the embeddings; a multiple of `n_head`. */
  n_embd?: number;
  /** Share of activations dropped in training, from 0 to below 1. */
  dropout?: number;
  /** Whether linear layers and layer norms have a bias. */
  bias?: boolean;

  /** The highest learning rate. */
  learning_rate?: number;
  /** The last iteration, counted from 0 as in nanoGPT. */
  max_iters?: number;
  /** AdamW's weight decay, for matrices and embeddings. */
  weight_decay?: number;
  /** AdamW's decay of the running mean of gradients. */
  beta1?: number;
  /** AdamW's decay of the running mean of squared gradients. */
  beta2?: number;
  /** The largest norm of the gradients, which are scaled down to it; 0: no clipping. */
  grad_clip?: number;
  /** Warm up, then decay the learning rate along a cosine; false: a constant rate. */
  decay_lr?: boolean;
  /** Iterations of warm-up. */
  warmup_iters?: number;
  /** Iteration at which the learning rate reaches `min_lr`; usually `max_iters`. */
  lr_decay_iters?: number;
  /** The learning rate after `lr_decay_iters`; usually a tenth of `learning_rate`. */
  min_lr?: number;

  /** How special tokens such as `<|endoftext|>` in a text are encoded: `refuse`: an error; `allow`: as tokens; `text`: as letters. */
  special_tokens?: "refuse" | "allow" | "text";
  /** Seeds weights, batches and dropout. */
  seed?: number;
  /** Where to compute; `auto` is the CPU. */
  device?: "auto" | "cpu" | "reference" | "webgpu" | "webgpu:software" | "webgpu:dawn" | "webgpu:dawn:software";
  /** Threads of the CPU device; 0 is one for each core. */
  threads?: number;
  /** Print at the end how long each kernel took. */
  profile?: boolean;
  /** Compute matrix products in machine code, on Linux with AVX-512; needs Deno's permission `--allow-ffi`. */
  native?: boolean;

  /** In nanoGPT's config files; only false is valid: this program has no torch.compile. */
  compile?: false;
  /** In nanoGPT's config files; only `float32` is valid: everything is computed in float32. */
  dtype?: "float32";
  /** In nanoGPT's config files; only false is valid: this program does not log to wandb. */
  wandb_log?: false;
  /** In nanoGPT's config files; accepted and ignored. */
  wandb_project?: string;
  /** In nanoGPT's config files; accepted and ignored. */
  wandb_run_name?: string;
}
