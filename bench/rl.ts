/**
 * How close PPO, GRPO and DPO come to the best policy, in a task whose best policy is known: `deno task bench:rl`.
 *
 * The reference `ref` is a model of 2 layers that writes strings of eight letters from an alphabet of four
 * (letters.ts). A rule gives each string its reward r. A policy's value J is its mean reward minus β times its KL
 * divergence from the reference. So the best policy is π* ∝ ref · exp(r / β), with the value J*. Both π* and each tuned
 * policy can be enumerated over all 65,536 strings, so judging a policy needs no sampling. Each run's row says whether
 * the policy is near: its J is at least 0.97 · J*, and its KL divergence to π* is at most 0.1 nats (DPO: 0.2).
 *
 * The gradient of GRPO's loss vanishes not at π*, but at another policy, GRPO's fixed point, which optimum.ts computes.
 * For GRPO, the table also has the KL divergence of the fixed point to π*, and that of the run's policy to the fixed
 * point.
 */
import { createDevice, type GPT } from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { float, int, text } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import { ConfigError } from "../src/errors.ts";
import { plainReward, type Reward } from "../src/finetune/rewards.ts";
import { copyOf, dpo, GROUP, groups, ppo, type World } from "../examples/rlhf/methods.ts";
import {
  divergence,
  enumerate,
  groupFixedPoint,
  isNear,
  judge,
  type Judgement,
  NEAR,
  optimalValue,
} from "../examples/rlhf/optimum.ts";
import { ANSWERS, pairs, PROMPT, reference, rewards, worth } from "./letters.ts";

/** Names of the methods, for `--methods`. */
export const METHODS = ["ppo", "grpo", "grpo-scaled", "rloo", "dpo"] as const;

const flags = {
  methods: text(
    METHODS.join(),
    "methods to run; grpo-scaled divides rewards by their standard deviation, as TRL does by default",
  ),
  betas: text("1,0.5,0.3,0.2", "values of β, the cost of each nat away from the reference"),
  seeds: int(5, "runs of each method and β", { min: 1 }),
  effort: float(1, "length of each run, relative to the length that suffices here", { min: 0 }),
  threads: int(navigator.hardwareConcurrency, "threads of the CPU device", { min: 1, max: 256 }),
};

/** The task, and the values that are known about it. */
export interface Letters extends World {
  /** Log-probability of each string under the reference model. */ readonly ref: Float64Array;
  readonly reward: Float64Array;
  readonly worth: Reward;
}

/** Trains the reference and enumerates its distribution. */
export async function openLetters(device: GPT["device"]): Promise<Letters> {
  const model = await reference(device), ref = await enumerate(model, PROMPT, ANSWERS);
  model.freeze();
  const prompts = [{ ids: PROMPT, prompt: "" }],
    own = plainReward("worth", ({ ids, from }) => worth(ids.subarray(from)));
  return { reference: model, answers: ANSWERS, prompts, ref, reward: rewards(), worth: own };
}

/** The result of a run. */
export interface Run extends Judgement {
  readonly near: boolean;
  /**
   * For GRPO, KL divergences with the policy at which the gradient of GRPO's loss vanishes: of that policy from π*
   * (predicted), and of the run's policy from that policy.
   */
  readonly rest?: readonly [predicted: number, from: number];
  readonly seconds: number;
}

/** Tunes a policy, and compares it with the best policy. */
export async function tune(
  letters: Letters,
  { method, beta, seed, effort }: { method: typeof METHODS[number]; beta: number; seed: number; effort?: number },
): Promise<Run> {
  const { ref, reward } = letters, begin = performance.now();
  const model = await copyOf(letters.reference), tuning = { beta, seed, effort, rewards: [letters.worth] };
  if (method === "ppo") await ppo(model, letters, tuning);
  else if (method === "dpo") {
    await dpo(model, letters, { ...tuning, rows: pairs(PAIRS * (effort ?? 1), { seed, reward }) });
  } else await groups(model, letters, { ...tuning, method: method === "grpo-scaled" ? "grpo scaled" : method });
  const seconds = (performance.now() - begin) / 1000;
  const policy = await enumerate(model, PROMPT, ANSWERS), judged = judge(policy, { ref, reward, beta });
  model.dispose();
  const near = isNear(judged, method === "dpo" ? { ...NEAR, distance: 2 * NEAR.distance } : NEAR);
  if (!method.startsWith("grpo")) return { ...judged, near, seconds };
  const rest = groupFixedPoint(ref, reward, { ...ANSWERS, beta, group: GROUP, scaled: method === "grpo-scaled" });
  return { ...judged, near, rest: [judge(rest, { ref, reward, beta }).distance, divergence(policy, rest)], seconds };
}

/** Number of pairs that DPO's updates use. */
const PAIRS = 128 * 2000;

const HEADS = ["method", "β", "seed", "E r", "KL to ref", "J / J*", "KL to π*", "near", "at rest", "KL to rest", "s"];

/**
 * Runs the benchmark.
 *
 * @param note prints a line about its progress
 */
export async function benchRl(
  args: string[],
  print: (line: string) => void,
  note: (line: string) => void = console.error,
): Promise<number> {
  const values = benchValues(flags, { task: "bench:rl", args, print });
  if (!values) return 0;
  const methods = values.methods.split(",").map((name) => {
    const method = METHODS.find((one) => one === name);
    if (!method) throw new ConfigError(`--methods has ${name}; expected some of ${METHODS}`);
    return method;
  });
  const betas = values.betas.split(",").map((beta) => {
    if (Number(beta) > 0 && Number(beta) < Infinity) return Number(beta);
    throw new ConfigError(`--betas has ${beta}; expected numbers above 0`);
  });
  using device = await createDevice("cpu", { threads: values.threads });
  const letters = await openLetters(device), { ref, reward } = letters;
  const row = (cells: readonly string[]) => print(`| ${cells.join(" | ")} |`);
  row(HEADS);
  row(HEADS.map(() => "---"));
  for (const beta of betas) {
    note(`β ${beta}: J* is ${optimalValue(ref, reward, beta).toFixed(4)}`);
    for (const method of methods) {
      for (let seed = 1; seed <= values.seeds; seed++) {
        const run = await tune(letters, { method, beta, seed, effort: values.effort }),
          show = (n: number) => n.toFixed(3);
        const measured = [run.reward, run.kl, run.share, run.distance].map(show);
        const rest = run.rest?.map(show) ?? ["", ""];
        row([method, `${beta}`, `${seed}`, ...measured, run.near ? "yes" : "no", ...rest, run.seconds.toFixed(1)]);
      }
    }
  }
  return 0;
}

if (import.meta.main) await runCommand((args) => benchRl(args, console.log));
