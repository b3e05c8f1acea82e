/** Rollouts, and the task for GRPO and RLOO: log-probabilities, first updates, learning, resuming, and errors. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import type { Device } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { CheckpointError, ConfigError, DataError, TrainingError } from "../../src/errors.ts";
import { PolicyGradient } from "../../src/finetune/grpo.ts";
import { groupArrays } from "../../src/finetune/group_batches.ts";
import { completeOptions, type PolicyGradientOptions } from "../../src/finetune/group_options.ts";
import { applyLora } from "../../src/finetune/lora.ts";
import { Scorer, tokenLogprobs } from "../../src/finetune/policy.ts";
import { policyLoss } from "../../src/finetune/policy_loss.ts";
import { plainReward } from "../../src/finetune/rewards.ts";
import { Roller, type Rollout } from "../../src/finetune/rollouts.ts";
import { Rows } from "../../src/generate/rows.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import type { StepEvent } from "../../src/train/events.ts";
import { trainingNeeds } from "../../src/train/memory.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertClose, devices, inFolder, openDevice } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 24, vocabSize: 7, nLayer: 2, nHead: 2, nEmbd: 16, dropout: 0.1, bias: true };
/** Prompts of 1 to 12 tokens. */
const PROMPTS = [3, 1, 12, 7, 2, 9].map((length, i) => ({
  ids: Int32Array.from({ length }, (_, t) => (i + 2 * t) % 6),
  prompt: `prompt ${i}`,
}));
const END = 6;
const threes = plainReward("threes", ({ ids, from }) => ids.subarray(from).filter((id) => id === 3).length);
const OPTIONS: PolicyGradientOptions = {
  ...{ batchSize: 8, numGenerations: 4, maxNewTokens: 8, temperature: 0.8, eosTokenId: END, seed: 5 },
  ...{ rewards: [threes], decode: (ids: Int32Array) => ids.join(" ") },
};
const TRAINING = {
  ...{ gradientAccumulationSteps: 1, evalIters: 1, evalInterval: 100, logInterval: 1 },
  ...{ learningRate: 5e-3, decayLr: false, warmupIters: 0, weightDecay: 0, finalEvaluation: true },
};

/**
 * Replaces the weights, so that the probabilities of tokens differ a lot. In a new model they are nearly equal.
 */
function reseed(model: GPT, seed: number): GPT {
  const generator = new RandomGenerator(seed),
    matrices = [...model.parameters()].filter(({ shape }) => shape.length === 2);
  for (const { storage } of matrices) model.device.fill(storage, (values) => generator.normal(values, 0, 0.3));
  return model;
}
const modelOn = (device: Device) => reseed(new GPT(CONFIG, { device }), 3);
const taskOf = (model: GPT, options: Partial<PolicyGradientOptions> = {}) =>
  new PolicyGradient(model, { train: PROMPTS, val: PROMPTS.slice(0, 3) }, { ...OPTIONS, ...options });

/**
 * Draws a micro-batch and runs the task's forward and backward pass on it.
 * @returns the measures of the loss and of the completions
 */
async function firstPass(task: PolicyGradient, model: GPT): Promise<Record<string, number>> {
  const [{ arrays }] = await Array.fromAsync(task.draw({ count: 1 } as never)), batch: Record<string, Tensor> = {};
  for (const [name, { values, shape }] of Object.entries(arrays)) {
    batch[name] = model.device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" });
  }
  const { loss, outputs } = task.loss(model, batch);
  loss.backward();
  const { logprobs } = tokenLogprobs(model, { tokens: batch.tokens, targets: batch.targets }, OPTIONS);
  if (batch.old) assertEquals(await logprobs.data(), await batch.old.data()); // so every ratio is exp(0)
  const measures = task.measures.map((name, i) => [name, i] as const), values = await outputs.data();
  return { ...Object.fromEntries(measures.map(([name, i]) => [name, values[i]])), ...task.drawn() };
}

for (const { name, device } of await devices()) {
  Deno.test(`a token has the same probability when it is sampled and in the training pass (${name})`, async () => {
    using model = modelOn(device);
    using rows = new Rows(model, { slots: 4 });
    for (const temperature of [1, 0.6]) {
      using scorer = new Scorer(model, { batchSize: 3, maxLength: 24, temperature });
      const written = await Promise.all(
        PROMPTS.slice(0, 4).map(async ({ ids: prompt }, seed) => {
          const drawn: number[] = [], how = { temperature, draws: "philox", topLogprobs: CONFIG.vocabSize } as const;
          const row = rows.add({ prompt, seed, maxNewTokens: 9, ...how });
          for await (const { id, topLogprobs } of row) { // `topLogprobs` are computed before the temperature is applied
            const scaled = topLogprobs!.map(({ logprob }) => logprob / temperature);
            const sum = Math.log(scaled.reduce((sum, one) => sum + Math.exp(one), 0));
            drawn.push(scaled[topLogprobs!.findIndex((one) => one.id === id)] - sum);
          }
          return { ids: Int32Array.from(row.tokens), from: prompt.length, drawn };
        }),
      );
      const scored = await scorer.logprobs(written);
      const limit = { atol: 1e-5, rtol: 0 };
      for (const [i, { drawn }] of written.entries()) assertClose(scored[i], drawn, limit, `${temperature}: row ${i}`);
    }
  });

  if (name === "reference") continue; // it computes in f64, but stores old log-probabilities in f32
  Deno.test(`the first ratios are exactly 1, and the policy's KL to itself is exactly 0 (${name})`, async () => {
    for (const method of ["grpo", "rloo"] as const) {
      for (const adapter of [false, true]) {
        using model = modelOn(device);
        using other = modelOn(device).freeze();
        const lora = adapter ? applyLora(model, { rank: 2 }) : undefined;
        using task = taskOf(model, { method, beta: 0.1, reference: lora ?? other, batchSize: 8 });
        const found = await firstPass(task, model);
        assertEquals([found["objective/kl"], found.kl], [0, 0], `${method}, ${adapter}`);
        const clipped = Object.keys(found).filter((key) => key.startsWith("clip_ratio/"));
        assertEquals(clipped.map((key) => found[key]), [0, 0, 0, 0, 0]);
        assert(found.entropy > 0.5 && found.reward_std > 0);
      }
    }
  });
}

Deno.test("shares of clipped ratios are of each text's tokens, and a text without learned tokens is not the minimum", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  const lengths = [[5, true], [3, true], [4, false]] as const; // the prompts have one token; the last text was cut off
  const rollouts = lengths.map(([length, ended], i) => ({
    ids: new Int32Array(length),
    from: 1,
    ended,
    promptIndex: i,
  }));
  const old = [[0, 0, 0, 0], [0, 0], [0, 0, 0]], ratios = [[0.5, 1, 0.5, 2], [0.5, 1], [1, 1, 1]];
  const options = { ...completeOptions(OPTIONS), maskTruncatedCompletions: true };
  for (const [sign, expected] of [[-1, [3 / 6, 0, 3 / 6, 1 / 2, 0]], [1, [0, 1 / 6, 1 / 6, 0, 1 / 4]]] as const) {
    const batch = { at: 0, batchSize: 3, lengths: [5], vocabSize: 7 }, all: Record<string, Tensor> = {};
    const arrays = groupArrays({ rollouts, old, advantages: [sign, sign, sign] }, batch, options);
    for (const [name, { values, shape }] of Object.entries(arrays)) all[name] = device.tensor(values, shape);
    const { against, share, mean, low, high, texts } = all;
    const logprobs = device.tensor(ratios.flatMap((row) => [...row, 1, 1, 1].slice(0, 5)).map(Math.log), [3, 5]);
    const inputs = { logprobs, old: all.old, against, share, mean, low, high, texts };
    const { clipped } = policyLoss(inputs, { epsilon: 0.2, epsilonHigh: 0.2 });
    assertClose(await clipped.data(), expected, { atol: 1e-6, rtol: 0 }, `advantages of ${sign}`);
  }
  device.close();
});

const gradients = async (model: GPT) => {
  const all = await Promise.all([...model.parameters()].map(async ({ grad }) => [...await grad!.data()]));
  return all.flat();
};

Deno.test("groups with equal rewards are counted and do not change the weights", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  const odd = plainReward("third", () => 1 / 3); // the mean of several 1 / 3 may have a rounding error
  for (const options of [{}, { scaleRewards: "none" }, { method: "rloo", beta: 0 }] as const) {
    using model = modelOn(device);
    using task = taskOf(model, { ...options, rewards: [odd], numGenerations: 8, batchSize: 24 });
    const found = await firstPass(task, model);
    assertEquals([found.frac_reward_zero_std, found.reward_std], [1, 0]);
    assertEquals((await gradients(model)).filter((value) => value !== 0), []);
  }
  device.close();
});

Deno.test("several rewards are added up with their weights, and reported under their names", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  using model = modelOn(device);
  const length = plainReward("length", ({ ids, from }) => ids.length - from, -0.5);
  const seen: string[] = [];
  const words = plainReward("words", ({ prompt, completion, ended, ids }) => {
    seen.push(`${prompt}: ${completion}`);
    return Number(ended === (ids.at(-1) === END) && !completion.includes(`${END}`)); // the end token is not part of the text
  });
  using task = taskOf(model, { rewards: [{ ...threes, weight: 2 }, length, words] });
  const found = await firstPass(task, model), { "completions/mean_length": mean } = found;
  assertClose([found["rewards/length/mean"]], [mean], { atol: 1e-12, rtol: 0 }, "length");
  assertEquals(found["rewards/words/mean"], 1);
  assertClose([found.reward], [2 * found["rewards/threes/mean"] - 0.5 * mean + 1], { atol: 1e-12, rtol: 0 }, "reward");
  assertEquals(seen.length, 8);
  assertEquals(new Set(seen.map((one) => one.slice(0, 8))).size, 2); // the 8 completions are of two prompts
  device.close();
});

Deno.test("a completion depends only on the rollout's number, not on rollouts before it or at the same time", async () => {
  const device = await openDevice("cpu", { threads: 2 });
  using model = modelOn(device);
  const prompts = [0, 0, 0, 2, 2, 1].map((i) => PROMPTS[i].ids),
    ids = (all: Rollout[]) => all.map(({ ids }) => [...ids]);
  const options = { maxNewTokens: 10, eosTokenId: END };
  using roller = new Roller(model, { ...options, slots: 6 });
  const first = ids(await roller.roll(prompts, { seed: 1, first: 40 }));
  for (const slots of [1, 4]) {
    using narrow = new Roller(model, { ...options, slots });
    assertEquals(ids(await narrow.roll(prompts, { seed: 1, first: 40 })), first, `${slots} slots`);
    assertEquals(ids(await narrow.roll(prompts.slice(4), { seed: 1, first: 44 })), first.slice(4));
  }
  assert(new Set(first.slice(0, 3).map(String)).size > 1); // completions of one prompt differ
  assert(String(ids(await roller.roll(prompts, { seed: 2, first: 39 })).slice(1)) !== String(first.slice(0, 5)));

  reseed(model, 4);
  const later = ids(await roller.roll(prompts, { seed: 1, first: 40 })); // keys and values cached with the old weights must not be used
  using fresh = new Roller(model, { ...options, slots: 6 });
  assertEquals(later, ids(await fresh.roll(prompts, { seed: 1, first: 40 })));
  assert(String(later) !== String(first));
  device.close();
});

Deno.test("a policy learns what is rewarded, by GRPO and RLOO, with all weights and with an adapter", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  for (const method of ["grpo", "rloo"] as const) {
    for (const adapter of [false, true]) {
      using model = modelOn(device);
      const lora = adapter ? applyLora(model, { rank: 4, targets: "all-linear" }) : undefined;
      const beta = { beta: adapter ? 0.01 : 0, reference: lora };
      using task = taskOf(model, { method, ...beta, batchSize: 16, numGenerations: 8, numIterations: 2 });
      using trainer = new Trainer(model, task, { ...TRAINING, learningRate: 0.02, maxIters: 40, evalInterval: 40 });
      const rewards: number[] = [];
      for await (const event of trainer.run()) if (event.kind === "evaluation") rewards.push(-event.valLoss);
      assert(rewards[1] > rewards[0] + 2 && rewards[1] > 4, `${method}, ${adapter}: ${rewards}`);
    }
  }
  device.close();
});

const DESCRIPTION = { flags: {}, model: { ...CONFIG, nInner: 64, activation: "gelu" }, vocabulary: {} };
const RUN = { numIterations: 2, stepsPerGeneration: 2, beta: 0.05, maxNewTokens: 6 };

async function run(
  path: string,
  { stopAt = 12, resume = false, options = {}, signal }: {
    stopAt?: number;
    resume?: boolean;
    options?: Partial<PolicyGradientOptions>;
    signal?: AbortSignal;
  } = {},
): Promise<StepEvent[]> {
  const device = await openDevice("cpu", { threads: 1 }), events: StepEvent[] = [];
  const folder = resume ? await RunFolder.open(path) : await RunFolder.create(path, DESCRIPTION);
  try {
    const model = modelOn(device), reference = modelOn(device).freeze();
    using task = taskOf(model, { ...RUN, reference, ...options });
    const adam = { maxIters: stopAt, finalEvaluation: false, evalInterval: 1000 };
    using trainer = new Trainer(model, task, { ...TRAINING, ...adam, folder });
    if (resume) await trainer.resume();
    for await (const event of trainer.run({ signal })) if (event.kind === "step") events.push(event);
  } finally {
    folder[Symbol.dispose]();
    device.close();
  }
  return events;
}
async function lastFiles(path: string): Promise<Uint8Array[]> {
  const { last } = JSON.parse(await Deno.readTextFile(`${path}/run.json`));
  const names = ["model.safetensors", "optimizer.safetensors", "state.json"];
  return await Promise.all(names.map((name) => Deno.readFile(`${path}/${last}/${name}`)));
}
/** The lines of metrics.jsonl, without times. */
const metrics = async (path: string) =>
  (await Deno.readTextFile(`${path}/metrics.jsonl`)).replace(/"(ms|tokens_per_second)":[^,]*,/g, "");

Deno.test("a run stopped within or between iterations resumes to the same bytes and metrics", () =>
  inFolder(async (path) => {
    await run(`${path}/whole`);
    for (const stopAt of [0, 1, 2, 3, 6]) { // an iteration has four updates
      const out = `${path}/${stopAt}`;
      await run(out, { stopAt });
      await run(out, { resume: true });
      assertEquals(await lastFiles(out), await lastFiles(`${path}/whole`), `stopped at ${stopAt}`);
      assertEquals(await metrics(out), await metrics(`${path}/whole`), `stopped at ${stopAt}`);
    }
    const refused = () => run(`${path}/3`, { resume: true, options: { numIterations: 3 } });
    await assertRejects(refused, CheckpointError, "its numIterations is 2, expected 3");
  }));

Deno.test("a run stopped while it writes or scores completions resumes without losing an update", () =>
  inFolder(async (path) => {
    await run(`${path}/whole`);
    for (const where of ["writing", "scoring"]) {
      const out = `${path}/${where}`, stop = new AbortController(), { signal } = stop;
      // Calls 1 and 2 of the reward score the evaluation of the two splits, call 3 the first iteration, call 4 the second
      // one. After call 3, the signal is checked 20 times for scores and log-probabilities, then by rows that are written.
      let calls = 0, checks = 0;
      const rewards = [{
        ...threes,
        score(...given: Parameters<typeof threes.score>) {
          if (++calls === 4) stop.abort(new Error("Ctrl-C"));
          return threes.score(...given);
        },
      }];
      signal.throwIfAborted = () => {
        if (where === "writing" && calls === 3 && ++checks === 30) stop.abort(new Error("Ctrl-C"));
        AbortSignal.prototype.throwIfAborted.call(signal);
      };
      await run(out, { options: { rewards }, signal });
      assertEquals(calls, where === "writing" ? 3 : 4);
      assertEquals(JSON.parse(await Deno.readTextFile(`${out}/run.json`)).last, "checkpoint-000004");
      await run(out, { resume: true });
      assertEquals(await lastFiles(out), await lastFiles(`${path}/whole`), where);
    }
  }));

Deno.test("a policy that moves too far from its reference stops the run, which is saved", () =>
  inFolder(async (path) => {
    const { message } = await assertRejects(() => run(path, { options: { maxKl: 0.02 } }), TrainingError);
    assert(
      /^The policy is too far from its reference: KL is .* nats per text, expected at most 0.02; .*\n.* iteration (4|8), .*checkpoint-00000\1/
        .test(message),
      message,
    );
  }));

Deno.test("the memory estimate is what a run takes or a little more, with and without a reference and an end token", async () => {
  for (const how of ["plain", "ends", "off", "beside"] as const) {
    const device = await openDevice("cpu", { threads: 1 }),
      other = modelOn(device).freeze(),
      { reserved } = device.memory();
    const model = modelOn(device), lora = how === "off" && applyLora(model, { rank: 2 });
    const reference = how === "off" || how === "beside" ? lora || other : undefined;
    const eosTokenId = how === "ends" ? END : undefined;
    using task = taskOf(model, { eosTokenId, reference, beta: reference ? 0.1 : 0, numGenerations: 8, batchSize: 24 });
    const adapt = lora ? (model: GPT) => void applyLora(model, lora.options) : undefined;
    const options = { ...TRAINING, maxIters: 24, device, model, adapt };
    const { bytes } = await trainingNeeds(model.config, { ...options, task: (model) => task.rehearsal(model) });
    using trainer = new Trainer(model, task, { ...TRAINING, maxIters: 24 });
    await Array.fromAsync(trainer.run());
    const taken = device.memory().reserved - reserved;
    assert(taken <= bytes && bytes < 1.3 * taken, `${how}: ${bytes} bytes, and ${taken} are taken`);
    device.close();
  }
});

Deno.test("a damaged iteration is refused, and an undamaged one is restored", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  using model = modelOn(device);
  using task = taskOf(model, { ...RUN, reference: model });
  await Array.fromAsync(task.draw({ count: 1 } as never));
  const state = JSON.parse(JSON.stringify(task.state())), { iteration } = state;
  task.restore(state, "state.json");
  assertEquals(JSON.parse(JSON.stringify(task.state())), state);
  const damages: Record<string, unknown>[] = [
    { completions: -1 },
    { iteration: { ...iteration, rollouts: iteration.rollouts.slice(1) } },
    { iteration: { ...iteration, rollouts: iteration.rollouts.with(0, { ...iteration.rollouts[0], from: 0 }) } },
    { iteration: { ...iteration, old: iteration.old.with(1, []) } },
    { iteration: { ...iteration, advantages: iteration.advantages.with(1, null) } },
    { iteration: 7 },
  ];
  for (const damage of damages) {
    const restore = () => task.restore({ ...state, ...damage }, "state.json");
    assertThrows(restore, CheckpointError, "state.json is damaged", JSON.stringify(damage).slice(0, 80));
  }
  device.close();
});

Deno.test("invalid options and prompts are refused", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  using model = modelOn(device);
  const refused = (options: Partial<PolicyGradientOptions>, prompts = PROMPTS) => () =>
    new PolicyGradient(model, { train: prompts, val: PROMPTS }, { ...OPTIONS, ...options });
  const long = { ids: new Int32Array(17), prompt: "" };
  assertThrows(refused({}, []), DataError, "train has no prompts");
  assertThrows(
    refused({}, [PROMPTS[0], long]),
    DataError,
    "prompt 1 of train has 17 tokens; expected one or more, with room for 8 in",
  );
  assertThrows(refused({ rewards: [] }), ConfigError, "There is no reward to learn from");
  assertThrows(refused({ rewards: [threes, threes] }), ConfigError, "Two rewards are called threes");
  assertThrows(refused({ numGenerations: 3 }), ConfigError, "8 completions are written at once");
  assertThrows(refused({ numGenerations: 1 }), ConfigError, "numGenerations is 1; expected 2 or more");
  assertThrows(refused({ beta: 0.1 }), ConfigError, "there is no reference to measure KL to");
  assertThrows(refused({ temperature: 0 }), ConfigError, "temperature is 0; expected a number above 0");
  using task = taskOf(model, { stepsPerGeneration: 3, numGenerations: 8 });
  const draw = () => Array.fromAsync(task.draw({ count: 2 } as never));
  await assertRejects(draw, ConfigError, "stepsPerGeneration is 3; expected a multiple of gradientAccumulationSteps");
  using four = taskOf(model, { stepsPerGeneration: 4, numGenerations: 8 });
  const next = (count: number) => Array.fromAsync(four.draw({ count } as never));
  await next(1);
  await assertRejects(
    () => next(2),
    ConfigError,
    "gradientAccumulationSteps is 2, but the current iteration has reached micro-batch 1",
  );
  device.close();
});
