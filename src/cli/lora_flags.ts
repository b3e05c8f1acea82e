/** The flags of `finetune` for training a LoRA adapter instead of the weights, and the adapter that they make. */
import type { TrainedAdapter } from "../checkpoint/adapter.ts";
import type { RunFolder } from "../checkpoint/run_folder.ts";
import { ConfigError } from "../errors.ts";
import { exists } from "../files/files.ts";
import { loadAdapter, trainedAdapter } from "../finetune/adapter.ts";
import { applyLora, type Lora, type LoraOptions } from "../finetune/lora.ts";
import type { GPT } from "../gpt.ts";
import type { Module } from "../nn/module.ts";
import { identifyModel } from "../pretrained/load.ts";
import { choice, float, int, text, type Values } from "./flags.ts";
import { count } from "./progress.ts";

export const loraFlags = {
  lora_rank: int(0, "train a LoRA adapter of this rank instead of the weights; 0: train the weights", { min: 0 }),
  lora_alpha: float(16, "LoRA: the adapter's output is multiplied by lora_alpha / lora_rank", { above: 0 }),
  lora_dropout: float(0, "LoRA: share of the adapter's inputs dropped in training", { min: 0, below: 1 }),
  lora_targets: text(
    "c_attn",
    "LoRA: layers with an adapter: names separated by commas, all-linear, or a regular expression for whole paths",
  ),
  weights: choice(
    ["f32", "bf16", "q8_0"],
    "LoRA: how the frozen weights are stored: bf16 takes half the memory of f32, q8_0 a quarter",
  ),
};

/** Flags that cannot change after a run has begun. */
export const LORA_FIXED = Object.keys(loraFlags) as (keyof typeof loraFlags)[];

const RATES: Readonly<Record<string, number>> = { dpo: 1e-5, grpo: 1e-5, ppo: 3e-5, reward: 1e-3, rloo: 1e-5 };
/** The default learning rate of an adapter for a task: ten times that for the weights. */
export const adapterRate = (task: string): number => RATES[task] ?? 2e-4;

export type LoraValues = Values<typeof loraFlags> & { readonly seed: number };

/**
 * Checks the flags of an adapter.
 *
 * @throws {ConfigError} if a flag that only an adapter can use, such as `--weights=bf16`, is given without
 *   `--lora_rank`
 */
export function checkLora(values: Omit<LoraValues, "seed">): void {
  const { lora_rank, weights } = values;
  if (lora_rank > 0) return;
  if (weights !== "f32") {
    throw new ConfigError(
      `--weights=${weights}: rounded weights cannot be trained, but an adapter on them can: --lora_rank=8`,
    );
  }
  const stray = LORA_FIXED.find((name) => values[name] !== loraFlags[name].fallback);
  if (stray) {
    throw new ConfigError(`--${stray}=${values[stray]}: this is only for an adapter; to train one, pass --lora_rank=8`);
  }
}

function loraOptions(
  { lora_rank: rank, lora_alpha: alpha, lora_dropout: dropout, lora_targets, seed }: LoraValues,
  trainableTokens: readonly number[],
): LoraOptions {
  const names = lora_targets.split(",").map((name) => name.trim()).filter(Boolean);
  const plain = lora_targets !== "all-linear" && names.every((name) => /^[\w.]+$/.test(name));
  return { rank, alpha, dropout, targets: plain ? names : lora_targets, trainableTokens, seed };
}

/** The adapter that a run trains. */
export interface RunAdapter {
  readonly trained: TrainedAdapter;
  /** Puts an adapter of the same shape on another model, to estimate its memory. */
  adapt(model: GPT): void;
  /** A line about the adapter, to print. */
  readonly line: string;
}

/**
 * Puts an adapter on the run's model: a new one, or that of a resumed run. Returns undefined if the weights are trained
 * instead.
 *
 * @param options.added ids of tokens that were added to the vocabulary: their rows of the embedding are trained too
 */
export async function putAdapter(
  values: LoraValues,
  model: GPT,
  { run, base, head, added = [] }: {
    readonly run?: RunFolder;
    readonly base: string;
    readonly head?: Module;
    readonly added?: readonly number[];
  },
): Promise<RunAdapter | undefined> {
  if (values.lora_rank === 0) return undefined;
  let lora: Lora;
  if (run) lora = await run.read("last", ({ folder }) => loadAdapter(folder, model, { trainable: true, head }));
  else lora = applyLora(model, { ...loraOptions(values, added), head });
  const { options } = lora, trained = [...lora.namedParameters()].reduce((sum, [, { size }]) => sum + size, 0);
  const share = (100 * trained / model.numParameters({ nonEmbedding: false })).toPrecision(2);
  return {
    trained: trainedAdapter(lora, { base, taskType: head && "score" in head ? "SEQ_CLS" : "CAUSAL_LM" }),
    adapt: (other) => void applyLora(other, options),
    line: `adapter: rank ${options.rank} on ${[options.targets].flat().join(", ")}; ` +
      `${count(trained)} parameters are trained, ${share} % of all`,
  };
}

/**
 * The entry in run.json for the model under an adapter, or for a reference model: its name, and a checksum of its
 * weights.
 */
export async function baseOf(init_from: string, absolute: (path: string) => string) {
  const name = await exists(init_from) ? absolute(init_from) : init_from;
  return { name, identity: await identifyModel(name) };
}
