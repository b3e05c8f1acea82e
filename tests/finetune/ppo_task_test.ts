/** PPO as a task of the trainer: first updates, learning, resuming, value functions, and errors. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import type { Device } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { CheckpointError, ConfigError, DataError, TrainingError } from "../../src/errors.ts";
import { applyLora } from "../../src/finetune/lora.ts";
import { ProximalPolicy } from "../../src/finetune/ppo.ts";
import type { ProximalOptions } from "../../src/finetune/ppo_options.ts";
import { plainReward } from "../../src/finetune/rewards.ts";
import { ValueModel } from "../../src/finetune/value.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import type { StepEvent } from "../../src/train/events.ts";
import type { MicroBatch } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, devices, inFolder, openDevice } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 16, vocabSize: 7, nLayer: 1, nHead: 2, nEmbd: 16, dropout: 0.1, bias: true };
/** Prompts of 1 to 3 tokens. */
const PROMPTS = Array.from({ length: 10 }, (_, i) => ({
  ids: Int32Array.from({ length: 1 + i % 3 }, (_, t) => (i + t) % 6),
  prompt: `prompt ${i}`,
}));
const END = 6;
const threes = plainReward("threes", ({ ids, from }) => ids.subarray(from).filter((id) => id === 3).length);
const SIZES = { batchSize: 4, microBatches: 2, miniBatches: 2, epochs: 2, maxNewTokens: 6 };
const OPTIONS = { ...SIZES, eosTokenId: END, temperature: 0.9, rewards: [threes], seed: 1 };
const TRAINING = {
  batchSize: 4,
  gradientAccumulationSteps: 2,
  evalIters: 1,
  evalInterval: 8,
  logInterval: 1,
  learningRate: 5e-3,
  decayLr: false,
  weightDecay: 0,
};

const modelOn = (device: Device, config: Partial<GPTConfig> = {}) =>
  new GPT({ ...CONFIG, ...config }, { device, seed: 3 });
const referenceOn = (device: Device) => modelOn(device).freeze();
const taskOf = (model: GPT, options: Partial<ProximalOptions> = {}) =>
  new ProximalPolicy(model, { train: PROMPTS, val: PROMPTS.slice(0, 4) }, {
    ...OPTIONS,
    reference: options.reference ?? referenceOn(model.device),
    decode: (ids) => ids.join(" "),
    ...options,
  });

async function steps(trainer: Trainer): Promise<StepEvent[]> {
  const found: StepEvent[] = [];
  for await (const event of trainer.run()) if (event.kind === "step") found.push(event);
  return found;
}

Deno.test("the first update of an iteration has ratios of 1, and the policy's KL to itself is 0", async () => {
  for (const { name, device } of await devices()) {
    if (name === "reference") continue; // it computes in f64, but stores old log-probabilities in f32
    for (const beside of [false, true]) {
      const model = modelOn(device), value = beside ? new ValueModel(modelOn(device)) : undefined;
      using task = taskOf(model, { value });
      using trainer = new Trainer(model, task, { ...TRAINING, maxIters: 8 });
      for (const [i, { measures = {} }] of (await steps(trainer)).entries()) {
        const of = (measure: string) => measures[`policy/${measure}_avg`];
        assertEquals(
          [of("approxkl") === 0, of("clipfrac") > 0 && i % 4 === 0],
          [i % 4 === 0, false],
          `${name}, update ${i}`,
        );
        assertEquals(measures["objective/kl"] === 0, i < 4, `${name}, update ${i}`);
        if (i === 0) assertClose([measures["val/ratio"]], [1], { atol: 1e-6, rtol: 0 }, name);
      }
      for (const module of [trainer, value, model, task.module]) module?.dispose();
    }
    device.close();
  }
});

Deno.test("a policy learns what is rewarded: with a value head, with a value model, and with an adapter", async () => {
  const device = await openDevice("cpu");
  for (const kind of ["head", "model", "adapter"]) {
    const model = modelOn(device), { weight } = model.lm_head;
    // An adapter does not change the embeddings. They are made large, so that changed hidden states can make a token
    // probable.
    if (kind === "adapter") device.write(weight.storage, (await weight.data()).map((x) => 20 * x));
    const lora = kind === "adapter" ? applyLora(model, { rank: 4, targets: "all-linear" }) : undefined;
    const value = kind === "model" ? new ValueModel(modelOn(device)) : undefined;
    using task = taskOf(model, { ...lora && { reference: lora }, value, scoreAt: kind === "model" ? "behind" : "end" });
    const learningRate = lora ? 1e-2 : 5e-3;
    using trainer = new Trainer(model, task, { ...TRAINING, learningRate, maxIters: 100 });
    const scores = (await steps(trainer)).map(({ measures = {} }) => measures["objective/scores"]);
    assert(scores[0] < 1.5 && scores.at(-1)! > 4.5, `${kind}: from ${scores[0]} to ${scores.at(-1)} threes of 6`);
  }
  device.close();
});

Deno.test("the gradient of an update does not depend on how its completions are divided into micro-batches", async () => {
  const device = await openDevice("reference"), found: number[][] = [];
  for (const [batchSize, microBatches] of [[8, 1], [4, 2], [1, 8]]) {
    const model = modelOn(device), sizes = { batchSize, microBatches, miniBatches: 1 };
    const text = { tokens: Int32Array.from({ length: 40 }, (_, i) => i % 6), coef: 0 };
    using task = taskOf(model, { ...sizes, scoreAt: "behind", pretraining: { ...text, batchSize: 1 } });
    // Tests the second update: the weights are changed after the first draw, so that ratios differ from 1.
    await Array.fromAsync(task.draw({} as never));
    for (const parameter of model.parameters()) {
      device.write(parameter.storage, (await parameter.data()).map((x, i) => x + 1e-2 * Math.sin(i)));
    }
    let all = 0;
    for await (const { arrays } of task.draw({} as never)) all += await backward(model, task, arrays);
    const gradients = await Promise.all(
      [...model.parameters(), ...task.module.parameters()].map(({ grad }) => grad!.data()),
    );
    found.push([all, ...gradients.flatMap((values) => [...values])]);
  }
  for (const other of found.slice(1)) assertClose(other, found[0], { atol: 1e-9, rtol: 1e-6 }, "divided");
  device.close();
});

async function backward(model: GPT, task: ProximalPolicy, arrays: MicroBatch["arrays"]): Promise<number> {
  const batch: Record<string, Tensor> = {};
  for (const [name, { values, shape }] of Object.entries(arrays)) {
    batch[name] = model.device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" });
  }
  const { loss } = task.loss(model, batch);
  loss.backward();
  return await loss.item();
}

Deno.test("PPO-ptx adds the loss of a text", async () => {
  const device = await openDevice("cpu"), model = modelOn(device);
  const tokens = Int32Array.from({ length: 200 }, (_, i) => i % 6);
  using task = taskOf(model, { klCoef: 0, pretraining: { tokens, coef: 2, batchSize: 3 } });
  using trainer = new Trainer(model, task, { ...TRAINING, maxIters: 60 });
  const losses = (await steps(trainer)).map(({ measures = {} }) => measures["loss/ptx_avg"]);
  assertClose([losses[0]], [Math.log(7)], { atol: .2, rtol: 0 }, "before it has learned the text");
  assert(losses[59] < losses[0] / 2, `${losses[0]} to ${losses[59]}`);
  device.close();
});

const DESCRIPTION = { flags: {}, model: { ...CONFIG }, vocabulary: { kind: "none" } };

async function run(path: string, { stopAt = Infinity, resume = false, options = {} as Partial<ProximalOptions> } = {}) {
  const device = await openDevice("cpu", { threads: 1 }), model = modelOn(device);
  try {
    const folder = resume ? await RunFolder.open(path) : await RunFolder.create(path, DESCRIPTION);
    const stop = new AbortController(), losses: number[] = [];
    using task = taskOf(model, options);
    using trainer = new Trainer(model, task, { ...TRAINING, maxIters: 9, folder });
    if (resume) await trainer.resume();
    for await (const event of trainer.run({ signal: stop.signal })) {
      if (event.kind === "step") losses.push(event.loss);
      if (event.kind === "evaluation") losses.push(event.valLoss);
      if (trainer.iter >= stopAt) stop.abort();
    }
    return losses;
  } finally {
    device.close();
  }
}

async function lastFiles(path: string): Promise<Uint8Array[]> {
  const { last } = JSON.parse(await Deno.readTextFile(`${path}/run.json`));
  const names = ["model.safetensors", "optimizer.safetensors", "task.safetensors", "state.json"];
  return await Promise.all(names.map((name) => Deno.readFile(`${path}/${last}/${name}`)));
}

Deno.test("a run stopped between two minibatches or two iterations resumes to the same bytes", () =>
  inFolder(async (path) => {
    const options = { klTarget: 1, klHorizon: 100 };
    const whole = await run(`${path}/whole`, { options });
    for (const stopAt of [1, 3, 4, 6]) {
      const out = `${path}/${stopAt}`, losses = await run(out, { stopAt, options });
      assertEquals([...losses, ...await run(out, { resume: true, options })], whole, `stopped at ${stopAt}`);
      assertEquals(await lastFiles(out), await lastFiles(`${path}/whole`), `stopped at ${stopAt}`);
    }
    const refused = () => run(`${path}/3`, { resume: true, options: { epochs: 3 } });
    await assertRejects(refused, CheckpointError, "its epochs is 2, expected 3");
  }));

Deno.test("a run stopped while completions are written resumes to the same bytes", () =>
  inFolder(async (path) => {
    const whole = await run(`${path}/whole`), stop = new AbortController(), out = `${path}/stopped`;
    const device = await openDevice("cpu", { threads: 1 }), model = modelOn(device), losses: number[] = [];
    const folder = await RunFolder.create(out, DESCRIPTION);
    const rewards = [{
      ...threes,
      score: (...given: Parameters<typeof threes.score>) => {
        if (trainer.iter === 4) stop.abort(new Error("Ctrl-C"));
        return threes.score(...given);
      },
    }];
    using task = taskOf(model, { rewards });
    using trainer = new Trainer(model, task, { ...TRAINING, maxIters: 9, folder });
    for await (const event of trainer.run({ signal: stop.signal })) {
      if (event.kind === "step") losses.push(event.loss);
      if (event.kind === "evaluation") losses.push(event.valLoss);
    }
    assertEquals(trainer.iter, 4);
    trainer.dispose();
    assertEquals([...losses, ...await run(out, { resume: true })], whole);
    assertEquals(await lastFiles(out), await lastFiles(`${path}/whole`));
    device.close();
  }));

Deno.test("a policy that moves too far from its reference stops the run, which is saved", () =>
  inFolder(async (path) => {
    const { message } = await assertRejects(() => run(path, { options: { maxKl: 1e-6 } }), TrainingError);
    assert(
      /is too far from its reference: KL is .* nats per text, expected at most 0.000001; .*\n.*iteration 4.*checkpoint-000004/
        .test(
          message,
        ),
      message,
    );
  }));

Deno.test("a damaged state is refused", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  using task = taskOf(modelOn(device));
  await Array.fromAsync(task.draw({} as never));
  const state = JSON.parse(JSON.stringify(task.state()));
  task.restore(state, "state.json");
  assertEquals(JSON.parse(JSON.stringify(task.state())), state);
  const damages: Record<string, unknown>[] = [
    { updates: 4 },
    { klCoef: null },
    { rollouts: undefined },
    { rollouts: state.rollouts.slice(1), texts: state.texts.slice(1) },
    { texts: state.texts.with(2, { ...state.texts[2], values: [] }) },
    { iterations: -1 },
  ];
  for (const damage of damages) {
    assertThrows(() => task.restore({ ...state, ...damage }, "state.json"), CheckpointError, "state.json is damaged");
  }
  device.close();
});

Deno.test("invalid options and prompts are refused", async () => {
  const device = await openDevice("cpu", { threads: 1 }),
    model = modelOn(device),
    long = { ids: new Int32Array(11), prompt: "" };
  const options = { ...OPTIONS, reference: model, decode: () => "" };
  const refuse = (prompts: typeof PROMPTS, more: Partial<ProximalOptions> = {}) => () =>
    new ProximalPolicy(model, { train: prompts, val: PROMPTS }, { ...options, ...more });
  assertThrows(refuse([]), DataError, "train has no prompts");
  assertThrows(
    refuse([PROMPTS[0], long]),
    DataError,
    "prompt 1 of train has 11 tokens; expected one or more, with room for 6 in the block size of 16",
  );
  assertThrows(refuse(PROMPTS, { rewards: [] }), ConfigError, "no reward");
  assertThrows(refuse(PROMPTS, { epochs: 0 }), ConfigError, "epochs is 0");
  const [reward] = OPTIONS.rewards;
  assertThrows(refuse(PROMPTS, { rewards: [reward, reward] }), ConfigError, "Two rewards are called");
  assertThrows(refuse(PROMPTS, { temperature: 0 }), ConfigError, "temperature is 0");
  device.close();
});
