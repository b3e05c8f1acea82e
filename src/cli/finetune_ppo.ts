/** `finetune --task=ppo`: a policy and its value function. */
import { readText } from "../data/load_text.ts";
import type { Tokens } from "../data/tokens.ts";
import { ConfigError, DataError } from "../errors.ts";
import { SequenceClassifier } from "../finetune/heads.ts";
import { adaptersOf } from "../finetune/lora.ts";
import { ProximalPolicy } from "../finetune/ppo.ts";
import type { ProximalOptions } from "../finetune/ppo_options.ts";
import { checkTokenizer } from "../finetune/rewards.ts";
import { ValueModel } from "../finetune/value.ts";
import { loadWithHead } from "../pretrained/load_head.ts";
import type { FinetuneValues } from "./finetune_flags.ts";
import { readPrompts, rolloutTuning } from "./finetune_rollouts.ts";
import type { Tuning, TuningSetup } from "./finetune_tasks.ts";
import { count } from "./progress.ts";
import { loadReference } from "./reference.ts";
import { openRewards } from "./rewards.ts";
import { encodeOptions, reportDownload } from "./shared_flags.ts";

/** Makes the trainer's task. */
export async function proximalPolicy(setup: TuningSetup): Promise<Tuning> {
  const { values, model } = setup, data = await readPrompts(setup), { reference, named } = await loadReference(setup);
  const rewards = await openRewards(setup), value = values.value_model ? await valueModel(setup) : undefined;
  const pretraining = await pretrainingText(setup),
    options = { ...optionsOf(values), reference, rewards, value, pretraining };
  const task = new ProximalPolicy(model, data.prompts, { ...options, ...data.how });
  const lines = [
    `value function: ${value ? `a second model, from ${values.value_model}` : "a head on the policy"}`,
    ...pretraining ? [`pretraining text: ${values.ptx_data}, ${count(pretraining.tokens.length)} tokens`] : [],
  ];
  return rolloutTuning(task, data, { rewards, reference: named, lines });
}

function optionsOf(values: FinetuneValues) {
  return {
    batchSize: values.batch_size,
    microBatches: values.gradient_accumulation_steps,
    miniBatches: values.num_mini_batches,
    epochs: values.num_ppo_epochs,
    temperature: values.temperature,
    klCoef: values.kl_coef,
    klEstimator: values.kl_estimator,
    klTarget: values.kl_target || undefined,
    klHorizon: values.kl_horizon,
    maxKl: values.max_kl || Infinity,
    clipRange: values.cliprange,
    clipRangeValue: values.cliprange_value,
    valueCoef: values.vf_coef,
    gamma: values.gamma,
    lambda: values.lam,
    whitenRewards: values.whiten_rewards,
    whitenAdvantages: values.whiten_advantages,
    scoreAt: values.score_at,
    missingEndPenalty: values.missing_eos_penalty,
    seed: values.seed,
  } satisfies Partial<ProximalOptions>;
}

/**
 * The value function that `--value_model` names. If the model has a head with one label, that head is used, else one of
 * zeros.
 */
async function valueModel({ values, model, tokenizer, progress }: TuningSetup): Promise<ValueModel> {
  const { value_model: name, seed } = values, { vocabSize, blockSize } = model.config;
  const options = { device: model.device, dropout: 0, seed, trainable: true };
  const onProgress = reportDownload(progress), onNote = (line: string) => progress.line(line);
  const loaded = await loadWithHead(name, { ...options, onNote, onProgress });
  const known = loaded.tokenizer.vocabSize;
  checkTokenizer(`--value_model=${name}`, loaded.tokenizer, tokenizer);
  if (loaded.model.config.blockSize < blockSize) {
    throw new ConfigError(
      `--value_model=${name}: its block size is ${loaded.model.config.blockSize}; expected at least the policy's, ${blockSize}`,
    );
  }
  for (const adapter of adaptersOf(loaded.model)) adapter.merge(); // all weights are trained
  loaded.model.resizeTokenEmbeddings(vocabSize, { known });
  return new ValueModel(loaded.model, loaded.head instanceof SequenceClassifier ? loaded.head.score : undefined);
}

/** The tokens of the text that `--ptx_data` names. */
async function pretrainingText({ values, model, tokenizer }: TuningSetup) {
  const { ptx_data: path, ptx_coef: coef, ptx_batch_size: batchSize, special_tokens } = values;
  if (!path) return undefined;
  const tokens: Tokens = tokenizer.encode(await readText(path), encodeOptions(special_tokens)),
    { blockSize } = model.config;
  if (tokens.length > blockSize) return { tokens, coef, batchSize };
  throw new DataError(`${path} has ${count(tokens.length)} tokens; expected more than the block size, ${blockSize}`);
}
