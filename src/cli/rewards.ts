/** The rewards that `--reward` names: reward models, and functions in TypeScript. */
import type { Device } from "../engine/device.ts";
import { ChatTemplate } from "../data/chat_template.ts";
import type { Words } from "../data/examples.ts";
import { ConfigError } from "../errors.ts";
import { RewardFunction } from "../finetune/reward_function.ts";
import { type Reward, RewardModel } from "../finetune/rewards.ts";
import { loadWithHead } from "../pretrained/load_head.ts";
import { graded, type Grader, graderReward } from "../server/graders.ts";
import { beginning } from "../tokenizer/tokenizer.ts";
import { taskCommand } from "./command.ts";
import type { TuningSetup } from "./finetune_tasks.ts";
import { parseRewards, type RewardFlag } from "./rollout_flags.ts";
import { reportDownload } from "./shared_flags.ts";

type Setup = Pick<TuningSetup, "tokenizer" | "model" | "progress">;

/**
 * Opens the rewards that `--reward` names, or makes the rewards of a job's grader.
 *
 * @throws {ConfigError} if a function cannot be loaded, or a model is not a reward model or has another tokenizer than
 *   the policy
 * @throws {CheckpointError} if a model is damaged
 */
export async function openRewards({ values, rewards: given, ...setup }: TuningSetup): Promise<readonly Reward[]> {
  if (given) return await given(setup.model.device);
  const { reward, reward_timeout: seconds } = values, rewards: Reward[] = [];
  for (const flag of parseRewards(reward)) {
    const isModule = /\.[cm]?[jt]s$/.test(flag.path);
    rewards.push(await (isModule ? RewardFunction.open(flag.path, { ...flag, seconds }) : openModel(flag, setup)));
  }
  return rewards;
}

async function openModel(
  { path, ...flag }: RewardFlag,
  { tokenizer: policy, model: { device }, progress }: Setup,
): Promise<Reward> {
  const onNote = (line: string) => progress.line(line), onProgress = reportDownload(progress);
  const { head, description, ...loaded } = await loadWithHead(path, { device, inference: true, onNote, onProgress });
  if (head && description) {
    return new RewardModel({ ...loaded, head, description }, { policy, ...flag, name: flag.name ?? path });
  }
  loaded.model.dispose();
  const how = taskCommand("finetune", [
    "--task=reward",
    "--data=PAIRS.jsonl",
    `--init_from=${path}`,
    "--out_dir=FOLDER",
  ]);
  throw new ConfigError(`--reward=${path}: the model has no head for rewards\nThis trains one: ${how}`);
}

/**
 * Makes the reward function for the grader of a job, as in OpenAI's fine-tuning API. A grader of type `score_model` is
 * a reward model, which encodes texts with its own tokenizer.
 *
 * @throws {ConfigError} if the grader's model is not a reward model
 */
export async function openGrader(grader: Grader, device: Device): Promise<Reward[]> {
  if (grader.type !== "score_model") return [graderReward(grader)];
  const { name, input, range: [least, most] = [-Infinity, Infinity], path } = grader;
  const { head, description, ...loaded } = await loadWithHead(path!, { device, inference: true });
  if (!head || !description) {
    throw new ConfigError(`grader.model: ${grader.model} is not a reward model: it has no head that gives a score`);
  }
  const { tokenizer, model: { config: { blockSize } } } = loaded, template = ChatTemplate.of(tokenizer);
  const model = new RewardModel({ ...loaded, head, description }, { policy: tokenizer, name });
  const idsOf = async (words: Words): Promise<Int32Array> => {
    const texts = typeof words === "string" ? [words] : words.map(({ content }) => content);
    const whole = typeof words !== "string" && template
      ? (await template.encode(tokenizer, words, {})).ids
      : tokenizer.encode(texts.join("\n"));
    const ids = whole.length > 0 ? whole : beginning(tokenizer);
    return Int32Array.from(ids).slice(-blockSize); // the completion is at the end of a text that is too long
  };
  return [{
    ...{ name, weight: 1 },
    async score(samples, options) {
      const read = samples.map(async (sample) => ({ ...sample, ids: await idsOf(graded(input, sample)) }));
      const found = await model.score(await Promise.all(read), options);
      return found.map((score) => Math.min(most, Math.max(least, score)));
    },
    [Symbol.dispose]() {
      template?.[Symbol.dispose]();
      model[Symbol.dispose]();
    },
  }];
}
