/**
 * Trains policies from preferences, in a world where the best policy is known. docs/rlhf.md explains every step.
 *
 *     deno run --allow-read --allow-env=NANOGPT_DEBUG --allow-write=out-rlhf examples/rlhf/rlhf.ts [--human] [--out_dir=out-rlhf]
 *
 * A small model learns to write tunes (tunes.ts), and then to answer a prompt with a tune. A listener chooses between
 * pairs of its answers, some thousand times; with `--human` the user does. A reward model learns the listener's taste
 * from these choices. PPO, GRPO and RLOO then optimise the policy for the reward model, each with several penalties β
 * for deviating from the first policy. DPO learns directly from the choices. Every policy is evaluated exactly, over
 * all answers to each prompt. `out-rlhf/index.html` compares the policies with the best possible ones.
 *
 * With the V8 flags that docs/rlhf.md names, the example takes half the time.
 */
import { createDevice, type Device, GPT } from "@nanogpt/ts";
import { TokenRows } from "@nanogpt/ts/data";
import {
  plainReward,
  type Reward,
  rewardDescription,
  RewardModel,
  RewardModelling,
  type Sample,
  SupervisedTuning,
} from "@nanogpt/ts/finetune";
import { runCommand } from "../../src/cli/command.ts";
import { describeFlags, fallbacks, parseCommandLine, text, toggle } from "../../src/cli/flags.ts";
import { answerOf, type Choice, choices, hiddenListener, humanListener, preferences, rankings } from "./listener.ts";
import { copyOf, dpo, GROUP, groups, ppo, train, type World } from "./methods.ts";
import { divergence, enumerate, expectation, groupFixedPoint, optimum, tokensOf } from "./optimum.ts";
import { report } from "./report.ts";
import { ANSWERS, NOTES, PROMPTS, taste, texts, tokenizer, tune, uniforms } from "./tunes.ts";

/** Sizes of the experiment. */
export const SIZES = {
  /** Updates of the language model, and of the model that answers. */ pretraining: 400,
  instructions: 200,
  /** Choices for training, and held-out choices to test the reward model. */ choices: 6000,
  heldOut: 2000,
  /** Passes over the choices for the reward model and for DPO. */ epochs: { reward: 10, dpo: 4 },
  /** Length of the policy training, relative to the defaults in methods.ts. */ effort: 0.4,
  /** The penalties β for each nat of divergence from the first policy. */
  betas: [2, 1, 0.5, 0.25] as readonly number[],
  /** Number of prompts to train on. */ prompts: PROMPTS.length,
  /** Number of evaluations during the two runs whose progress is shown. */ looks: 8,
};

/** Exact measures of a policy over all answers: means over the prompts. */
export interface Point {
  /** KL divergence from the first policy, in nats. */ readonly kl: number;
  /** Mean score by the listener's taste, and by the reward model. */ readonly taste: number;
  readonly model: number;
}
/** The final policy of a run. */
export interface Result extends Point {
  readonly method: string;
  readonly beta: number;
  /**
   * KL divergence from π* of the reward model, or, for DPO, of the taste, because DPO learns from the choices; NaN
   * without β.
   */
  readonly distance: number;
  readonly seconds: number;
  /** The most likely answer to each prompt, and its probability. */ readonly answers: readonly string[];
  /** Measures of the policy during the run, if it was evaluated then. */ readonly way: readonly Point[];
}
/** Everything that the page shows. */
export interface Outcome {
  readonly human: boolean;
  readonly choices: number;
  /** Accuracy of the reward model on held-out choices, and of the taste itself, which no model exceeds on average. */
  readonly accuracy: { readonly model: number; readonly best: number };
  readonly first: Point & { readonly answers: readonly string[] };
  /** The best policies for the taste and for the reward model, and the fixed points of GRPO, for decreasing β. */
  readonly curves: Readonly<Record<"taste" | "model" | "grpo", readonly Point[]>>;
  readonly results: readonly Result[];
}

/** Runs all steps from a text to the trained policies. @param note called with lines that report the progress */
export async function rlhf(
  device: Device,
  { human = false, sizes = SIZES, note = console.error }: {
    human?: boolean;
    sizes?: typeof SIZES;
    note?: (line: string) => void;
  } = {},
): Promise<Outcome> {
  const begin = performance.now();
  const say = (line: string) => note(`${((performance.now() - begin) / 1000).toFixed(0).padStart(4)} s  ${line}`);

  // 1. A language model, trained on blocks of a text of tunes.
  const draw = uniforms(1), blocks = new TokenRows(), T = 8; // length of a prompt and an answer
  for (let tunes = ""; blocks.length < 32 * sizes.pretraining; tunes = tunes.slice(T)) {
    while (tunes.length < T) tunes += `${tune(draw)}.`;
    blocks.push({ ids: tokenizer.encode(tunes.slice(0, T)), learned: new Uint8Array(T).fill(1) });
  }
  const shape = { vocabSize: tokenizer.vocabSize, blockSize: T, nLayer: 2, nHead: 4, nEmbd: 64, bias: false };
  const policy = new GPT(shape, { device, seed: 1 });
  await train(policy, new SupervisedTuning(policy, { train: blocks, val: blocks }, { batchSize: 32, maxLength: T }), {
    ...{ learningRate: 3e-3, updates: sizes.pretraining },
  });
  say("a language model of tunes");

  // 2. A model that answers, trained on prompts and tunes.
  const shown = new TokenRows();
  while (shown.length < 64 * sizes.instructions) {
    const first = NOTES[Math.floor(5 * draw())], ids = tokenizer.encode(`${first}.${tune(draw, first)}.`);
    shown.push({ ids, learned: new Uint8Array(ids.length).fill(1, 2) });
  }
  await train(policy, new SupervisedTuning(policy, { train: shown, val: shown }, { batchSize: 64, maxLength: T }), {
    ...{ learningRate: 1e-3, updates: sizes.instructions },
  });
  policy.freeze();
  const asked = PROMPTS.slice(0, sizes.prompts).map((prompt) => ({ ids: tokenizer.encode(prompt), prompt }));
  const world: World = { reference: policy, answers: ANSWERS, prompts: asked };
  const enumerated = (model: GPT) => Array.fromAsync(asked, ({ ids }) => enumerate(model, ids, ANSWERS));
  const refs = await enumerated(policy);
  say("a model that answers");

  // 3. Choices between pairs of its answers.
  const total = human ? 200 : sizes.choices + sizes.heldOut, again = human ? 15 : 1; // few choices need more passes
  using person = human ? humanListener() : undefined;
  const chosen = await choices(policy, { count: total, seed: 2, listener: person ?? hiddenListener(uniforms(3)) });
  const held = Math.round(chosen.length * sizes.heldOut / (sizes.choices + sizes.heldOut));
  const [judging, learning] = [chosen.slice(0, held), chosen.slice(held)];
  if (judging.length === 0 || learning.length === 0) throw new RangeError("Too few choices to train on");
  say(`${chosen.length} choices`);

  // 4. A reward model, trained on the choices: the model that answers, with a scalar head.
  const body = await copyOf(policy), rows = { train: rankings(learning), val: rankings(judging) };
  const task = new RewardModelling(body, rows, { batchSize: 64, maxLength: T });
  const updates = Math.ceil(again * sizes.epochs.reward * learning.length / 64);
  await train(body, task, { learningRate: 2e-3, updates });
  const scoring = { model: body, head: task.module, description: rewardDescription(), tokenizer };
  using reward = new RewardModel(scoring, { policy: tokenizer, batchSize: 256 });
  const tastes = asked.map(({ prompt }) => Float64Array.from(texts, (answer) => taste(prompt, answer)));
  const scores = await Array.fromAsync(asked, ({ prompt }, i) => scoresOf(reward, prompt, refs[i]));
  const accuracy = { model: await right(reward, judging), best: await right(plainTaste, judging) };
  say(`a reward model that predicts ${(100 * accuracy.model).toFixed(1)} % of held-out choices`);

  // 5. Policies. They are evaluated over all their answers, which is only possible in such a small world.
  const mean = (of: (i: number) => number) => asked.reduce((sum, _, i) => sum + of(i), 0) / asked.length;
  const point = (policies: readonly Float64Array[]): Point => ({
    kl: mean((i) => divergence(policies[i], refs[i])),
    taste: mean((i) => expectation(policies[i], tastes[i])),
    model: mean((i) => expectation(policies[i], scores[i])),
  });
  const results: Result[] = [];
  const run = async (method: string, beta: number, body: (model: GPT, looking: object) => Promise<void>, looks = 0) => {
    const model = await copyOf(policy), way: Point[] = [], from = performance.now();
    const onLook = async () => void way.push(point(await enumerated(model)));
    await body(model, looks > 0 ? { looks, onLook } : {});
    const seconds = (performance.now() - from) / 1000, policies = await enumerated(model), at = point(policies);
    const wanted = method === "DPO" ? tastes : scores; // DPO has no reward model
    const known = beta > 0 && !(human && method === "DPO"); // the user's taste is unknown
    const distance = !known ? NaN : mean((i) => divergence(policies[i], optimum(refs[i], wanted[i], beta)));
    results.push({ method, beta, ...at, distance, seconds, answers: policies.map(likeliest), way });
    model.dispose();
    say(
      `${method}, β ${beta}: ${human ? "" : `the taste ${at.taste.toFixed(2)}, `}score ${at.model.toFixed(2)}, KL ${
        at.kl.toFixed(2)
      }`,
    );
  };
  const { effort } = sizes,
    decode = (ids: Int32Array) => tokenizer.decode(ids),
    own = { rewards: [reward], seed: 5, decode };
  for (const beta of sizes.betas) {
    await run("PPO", beta, (model) => ppo(model, world, { ...own, beta, effort }));
    await run("RLOO", beta, (model) => groups(model, world, { ...own, beta, effort, method: "rloo" }));
    await run("GRPO", beta, (model) => groups(model, world, { ...own, beta, effort: effort / 2, method: "grpo" }));
    await run("DPO", beta, (model) => {
      return dpo(model, world, {
        beta,
        seed: 5,
        effort: again * sizes.epochs.dpo * learning.length / 128 / 2000,
        rows: preferences(learning),
      });
    });
  }
  // 6. PPO with and without a penalty: without it the policy exploits the errors of the reward model.
  const price = sizes.betas[Math.floor(sizes.betas.length / 2)];
  for (const beta of [price, 0]) {
    const name = beta === 0 ? "PPO without a penalty" : "PPO with a penalty";
    await run(
      name,
      beta,
      (model, looking) => ppo(model, world, { ...own, ...looking, beta, effort: 2 * effort }),
      sizes.looks,
    );
  }
  const prices = Array.from({ length: 25 }, (_, i) => 4 * 0.82 ** i); // from 4 to 0.03
  const best = (rewards: readonly Float64Array[]) =>
    prices.map((beta) => point(refs.map((ref, i) => optimum(ref, rewards[i], beta))));
  const grpo = prices.filter((_, i) => i % 2 === 0).map((beta) =>
    point(refs.map((ref, i) => groupFixedPoint(ref, scores[i], { ...ANSWERS, beta, group: GROUP, scaled: false })))
  );
  const curves = { taste: best(tastes), model: best(scores), grpo };
  return {
    human,
    choices: learning.length,
    accuracy,
    first: { ...point(refs), answers: refs.map(likeliest) },
    curves,
    results,
  };
}

/** The reward model's score of every answer; 0 for leaves that are not valid answers. */
async function scoresOf(reward: Reward, prompt: string, ref: Float64Array): Promise<Float64Array> {
  const leaves = [...ref.keys()].filter((leaf) => ref[leaf] > -Infinity), before = tokenizer.encode(prompt);
  const found = await reward.score(leaves.map((leaf): Sample => {
    const ids = Int32Array.of(...before, ...tokensOf(leaf, ANSWERS)), from = before.length;
    return { prompt, completion: texts[leaf], ids, from, ended: ids.at(-1) === ANSWERS.end };
  }));
  const all = new Float64Array(ref.length);
  for (const [i, leaf] of leaves.entries()) all[leaf] = found[i];
  return all;
}

/** The listener's taste as a reward, which a perfect reward model would compute. */
const plainTaste = plainReward("taste", ({ prompt, ids, from }) => taste(`${prompt}`, answerOf({ ids, from })));

/** Fraction of the choices that a reward predicts correctly; a tie counts one half. */
async function right(reward: Reward, choices: readonly Choice[]): Promise<number> {
  const samples = choices.flatMap(({ prompt, chosen, rejected }) =>
    [chosen, rejected].map((one): Sample => ({ ...one, prompt, completion: answerOf(one) }))
  );
  const scores = await reward.score(samples);
  return choices.reduce((sum, _, i) => sum + (1 + Math.sign(scores[2 * i] - scores[2 * i + 1])) / 2, 0) /
    choices.length;
}

/** The most likely answer and its probability, such as "cdgdc. 41 %". */
function likeliest(policy: Float64Array): string {
  const leaf = policy.indexOf(policy.reduce((a, b) => Math.max(a, b)));
  return `${texts[leaf]} ${(100 * Math.exp(policy[leaf])).toFixed(0)} %`;
}

const flags = {
  human: toggle("choose between the answers yourself, at the terminal"),
  out_dir: text("out-rlhf", "folder for index.html and outcome.json"),
};

async function main(args: string[]): Promise<number> {
  const { given, help } = parseCommandLine(flags, args), { human, out_dir } = { ...fallbacks(flags), ...given };
  if (help) {
    console.log(`deno run examples/rlhf/rlhf.ts [--name=value …]\n\n${describeFlags(flags, fallbacks(flags))}`);
    return 0;
  }
  await Deno.mkdir(out_dir, { recursive: true }); // now, so that a bad folder is reported before minutes of work
  using device = await createDevice("cpu");
  const outcome = await rlhf(device, { human });
  await Deno.writeTextFile(`${out_dir}/outcome.json`, JSON.stringify(outcome, null, 1));
  await Deno.writeTextFile(`${out_dir}/index.html`, report(outcome));
  console.log(`Open ${out_dir}/index.html in a browser`);
  return 0;
}

if (import.meta.main) await runCommand(main);
