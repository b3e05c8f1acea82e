/** The rewards that `--reward` names: reward models, and functions in TypeScript. */
import type { Device } from "../engine/device.ts";
import { ConfigError } from "../errors.ts";
import { type Reward, RewardFunction, RewardModel } from "../finetune/rewards.ts";
import { loadWithHead } from "../pretrained/load_head.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { taskCommand } from "./command.ts";
import type { Progress } from "./progress.ts";
import { parseRewards, type RewardFlag } from "./rollout_flags.ts";
import { reportDownload } from "./shared_flags.ts";

/** What rewards are made with. */
interface Setup {
  /** The policy's. */ readonly tokenizer: Tokenizer;
  /** Of reward models too. */ readonly device: Device;
  readonly progress: Progress;
}

/**
 * Opens them, one after the other.
 *
 * @throws {ConfigError} when a function cannot be loaded, or a model is not a reward model or has another tokenizer than the policy
 * @throws {CheckpointError} when a model is damaged
 */
export async function openRewards(
  { reward, reward_timeout: seconds }: { readonly reward: string; readonly reward_timeout: number },
  setup: Setup,
): Promise<Reward[]> {
  const rewards: Reward[] = [];
  for (const flag of parseRewards(reward)) {
    const isModule = /\.[cm]?[jt]s$/.test(flag.path);
    rewards.push(await (isModule ? RewardFunction.open(flag.path, { ...flag, seconds }) : openModel(flag, setup)));
  }
  return rewards;
}

async function openModel(
  { path, ...flag }: RewardFlag,
  { tokenizer: policy, device, progress }: Setup,
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
  throw new ConfigError(`--reward=${path}: the model has no head that gives a reward\nThis trains one: ${how}`);
}
import { type Grader, graderReward } from "../server/graders.ts";

/** A grader as a reward. */
export function openGrader(grader: Grader, _device: Device): Promise<Reward[]> {
  if (grader.type === "score_model") throw new Error("score_model");
  return Promise.resolve([graderReward(grader)]);
}
