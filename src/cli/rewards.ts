/** STAND-IN */
import type { Device } from "../engine/device.ts";
import { plainReward, type Reward, type Sample } from "../finetune/rewards.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { absolute } from "./train_command.ts";
import { parseRewards } from "./rollout_flags.ts";
import type { Progress } from "./progress.ts";
export async function openRewards(
  values: { readonly reward: string; readonly reward_timeout: number },
  _: { readonly tokenizer: Tokenizer; readonly device: Device; readonly progress: Progress },
): Promise<Reward[]> {
  return await Promise.all(
    parseRewards(values.reward).map(async ({ path, weight, name }) => {
      const module = await import(`file://${absolute(path)}`);
      return plainReward(name ?? path, (sample: Sample) => module.default(sample.prompt, sample.completion), weight);
    }),
  );
}
