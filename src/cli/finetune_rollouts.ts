/**
 * The tasks of `finetune` in which a policy learns from its own completions: grpo, rloo. What they share with ppo is
 * here too.
 */
import { ChatTemplate } from "../data/chat_template.ts";
import type { Words } from "../data/examples.ts";
import { endOfText } from "../data/tokenize_example.ts";
import { tokenizePrompt } from "../data/tokenize_preference.ts";
import { ConfigError, DataError } from "../errors.ts";
import { PolicyGradient } from "../finetune/grpo.ts";
import type { PolicyLossType } from "../finetune/group_batches.ts";
import type { Reward } from "../finetune/rewards.ts";
import type { PromptSplits, RolloutSample } from "../finetune/prompts.ts";
import type { RolloutTask, RolloutTaskOptions } from "../finetune/rollout_task.ts";
import { spoken } from "../generate/stopping.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { FinetuneValues } from "./finetune_flags.ts";
import { readSplits, type Tuning, type TuningSetup } from "./finetune_tasks.ts";
import { count } from "./progress.ts";
import { loadReference } from "./reference.ts";
import { openRewards } from "./rewards.ts";
import { rowOptions } from "./row_flags.ts";

/** The default of `--max_completion_length`, if the block size allows it; it is TRL's default. */
const MOST_NEW = 512;

/** The prompts of a file, and how completions are generated. */
export interface PromptData {
  readonly prompts: PromptSplits;
  readonly how: Pick<RolloutTaskOptions, "maxNewTokens" | "eosTokenId" | "decode">;
  /** Whether all prompts are conversations. */
  readonly chats: boolean;
  /** Lines about the prompts, to print. */
  readonly lines: readonly string[];
}

/**
 * Reads prompts.
 *
 * @throws {DataError} if a prompt leaves no room for a completion; the message names the row
 * @throws {ConfigError} if no token ends a text, unless `--fixed_length=True`
 */
export async function readPrompts({ values, model, tokenizer, progress }: TuningSetup): Promise<PromptData> {
  const { data, eval_data, max_completion_length: asked, fixed_length } = values, { blockSize } = model.config;
  using template = ChatTemplate.of(tokenizer, { name: values.template || undefined });
  const options = rowOptions(values, { tokenizer, template });
  let plain = false, longest = { length: 0, where: "" };
  const prompts = await readSplits(values, ["prompt"], progress, async (example) => {
    const ids = await tokenizePrompt(example, options), { prompt, more, where } = example;
    plain ||= typeof prompt === "string";
    if (ids.length > longest.length) longest = { length: ids.length, where };
    return { ids, prompt, more };
  });
  const left = blockSize - longest.length, maxNewTokens = asked || Math.min(left, MOST_NEW);
  if (left < maxNewTokens || left < 1) {
    const room = left < 1 ? "no room for an answer" : `room for ${left} of --max_completion_length=${asked}`;
    throw new DataError(
      `${longest.where}: the prompt has ${longest.length} tokens, which leaves ${room}: the block size is ${blockSize}`,
    );
  }
  const files = eval_data ? `${data} and ${eval_data}` : data, { train, val } = prompts;
  return {
    prompts,
    how: {
      maxNewTokens,
      eosTokenId: fixed_length ? undefined : await endOf(tokenizer, template, plain),
      decode: decoderOf(tokenizer, plain),
    },
    chats: !plain,
    lines: [
      `${files}: ${count(train.length)} prompts to learn on, ${count(val.length)} to evaluate on; ` +
      `the longest has ${count(longest.length)} tokens, an answer at most ${count(maxNewTokens)}`,
    ],
  };
}

/** The token that ends a completion. */
async function endOf(tokenizer: Tokenizer, template: ChatTemplate | undefined, plain: boolean): Promise<number> {
  const turn = plain ? undefined : await template?.endOfTurn(tokenizer), id = turn?.ids[0] ?? endOfText(tokenizer);
  if (id !== null && !(turn && turn.ids.length === 0)) return id;
  throw new ConfigError(
    `The tokenizer has no token that ends ${
      turn ? "a turn of the chat" : "a text"
    }, so the policy could not end its answers; ` +
      "with --fixed_length=True all answers have the same length",
  );
}

/** Decodes completions; in a chat, without special tokens. */
function decoderOf(tokenizer: Tokenizer, plain: boolean): (ids: Int32Array) => string {
  const how = plain ? tokenizer : spoken(tokenizer), { vocabSize } = tokenizer;
  return (ids) => {
    const decoder = how.decoder();
    let text = "";
    for (const id of ids) text += id < vocabSize ? decoder.push(id) : `${decoder.end()}\ufffd`;
    return text + decoder.end();
  };
}

/** Makes the trainer's task for GRPO or RLOO. */
export async function policyGradient(setup: TuningSetup): Promise<Tuning> {
  const { values, model } = setup, data = await readPrompts(setup);
  const { beta, ref_model, lora_rank, max_kl } = values, wanted = beta > 0 || ref_model || lora_rank > 0 && max_kl > 0;
  const { reference, named } = wanted ? await loadReference({ ...setup }) : {}, rewards = await openRewards(setup);
  const task = new PolicyGradient(model, data.prompts, { ...optionsOf(values), ...data.how, reference, rewards });
  return rolloutTuning(task, data, { rewards, reference: named });
}

/**
 * Wraps a task that learns from rewards with what `finetune` needs besides the task: lines to print, sizes, a sample.
 *
 * @param more.lines more lines about the task, to print
 */
export function rolloutTuning(
  task: RolloutTask,
  { prompts, lines, chats, how: { maxNewTokens } }: PromptData,
  { rewards, reference, lines: more = [] }: Pick<Tuning, "reference"> & {
    readonly rewards: readonly Reward[];
    readonly lines?: readonly string[];
  },
): Tuning {
  return {
    task,
    microBatches: { train: task.microBatches("train"), val: task.microBatches("val") },
    rehearse: (model) => task.rehearsal(model),
    chats,
    prompt: prompts.val[0].ids,
    sampleTokens: maxNewTokens,
    data: [
      ...lines,
      `rewards: ${rewards.map(({ name, weight }) => weight === 1 ? name : `${weight} · ${name}`).join(" + ")}`,
      ...more,
      "the loss of an evaluation is the negative mean reward, so that the best checkpoint has the highest reward",
    ],
    reference,
    owned: {
      [Symbol.dispose]() {
        for (const one of [task, ...rewards]) one[Symbol.dispose]();
      },
    },
    shown: () => task.sample ? sampleLines(task.sample) : [],
  };
}

function optionsOf(values: FinetuneValues) {
  const { num_generations, batch_size, steps_per_generation, gradient_accumulation_steps } = values;
  return {
    method: values.task as "grpo" | "rloo",
    batchSize: batch_size,
    stepsPerGeneration: steps_per_generation || gradient_accumulation_steps,
    numGenerations: num_generations,
    numIterations: values.num_iterations,
    beta: values.beta,
    maxKl: values.max_kl || undefined,
    epsilon: values.epsilon,
    epsilonHigh: values.epsilon_high || undefined,
    maskTruncatedCompletions: values.mask_truncated_completions,
    delta: values.delta || undefined,
    scaleRewards: values.scale_rewards,
    lossType: values.loss_type as PolicyLossType, // checked by checkRollouts
    importanceSamplingLevel: values.importance_sampling_level,
    useBiasCorrectionKl: values.use_bias_correction_kl,
    normalizeAdvantages: values.normalize_advantages,
    temperature: values.temperature,
    seed: values.seed,
  };
}

/** A line with a prompt, its completion and the reward. */
function sampleLines({ prompt: { prompt }, completion, reward }: RolloutSample): string[] {
  const words = (said: Words) => typeof said === "string" ? said : said.at(-1)?.content ?? "";
  return [`  ${JSON.stringify(words(prompt))} → ${JSON.stringify(completion)}, reward ${reward.toFixed(4)}`];
}
