/** What a config file exports: train's flags, each by its name, those that it sets. `deno task train --help` says what they do. */
export interface TrainConfig {
  out_dir?: string;
  eval_interval?: number;
  log_interval?: number;
  eval_iters?: number;
  eval_only?: boolean;
  always_save_checkpoint?: boolean;
  /** `scratch`, `resume`, or a model to fine-tune. */
  init_from?: string;

  dataset?: string;
  /** A text file, instead of the dataset. */
  input?: string;
  tokenizer?: string;
  gradient_accumulation_steps?: number;
  batch_size?: number;
  block_size?: number;

  n_layer?: number;
  n_head?: number;
  n_embd?: number;
  dropout?: number;
  bias?: boolean;

  learning_rate?: number;
  max_iters?: number;
  weight_decay?: number;
  beta1?: number;
  beta2?: number;
  grad_clip?: number;
  decay_lr?: boolean;
  warmup_iters?: number;
  lr_decay_iters?: number;
  min_lr?: number;

  special_tokens?: "refuse" | "allow" | "text";
  seed?: number;
  device?: "auto" | "cpu" | "reference" | "webgpu" | "webgpu:software" | "webgpu:dawn" | "webgpu:dawn:software";
  threads?: number;
  profile?: boolean;
  native?: boolean;

  // Taken for nanoGPT's config files.
  compile?: false;
  dtype?: "float32";
  wandb_log?: false;
  wandb_project?: string;
  wandb_run_name?: string;
}
