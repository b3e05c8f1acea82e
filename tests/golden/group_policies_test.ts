/**
 * GRPO and RLOO against plain PyTorch (alignment.py): advantages, measures, losses and gradients of an update, and four
 * updates by the trainer.
 */
import { assertEquals } from "@std/assert";
import type { Tensor } from "../../src/engine/tensor.ts";
import { PolicyGradient } from "../../src/finetune/grpo.ts";
import type { PolicyGradientOptions } from "../../src/finetune/group_options.ts";
import { judgeGroups } from "../../src/finetune/group_batches.ts";
import { plainReward } from "../../src/finetune/rewards.ts";
import { rolloutsToJSON } from "../../src/finetune/rollouts.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { assertUpdates } from "./updates.ts";
import { loadWeights } from "./weights.ts";

type Options = Omit<PolicyGradientOptions, "rewards">;

interface GroupCase extends Omit<Options, "maxNewTokens" | "method"> {
  readonly name: string;
  readonly config: GPTConfig;
  readonly rows: readonly { ids: number[]; from: number; ended: boolean; group: number }[];
  readonly updates: readonly (readonly (readonly number[])[])[];
  readonly maxCompletionLength: number;
  readonly numGenerations: number;
  readonly beta: number;
  readonly biasCorrection?: boolean;
  readonly rewardWeights: readonly number[];
  readonly metrics?: readonly string[];
  readonly learningRate?: number;
  readonly weightDecay: number;
  readonly betas: readonly [number, number];
  readonly gradClip: number;
}

async function check({ device }: TestDevice, fixture: Fixture<GroupCase>, number: number, method: "grpo" | "rloo") {
  const test = fixture.cases[number], { name, config, updates, metrics = [] } = test;
  const expected = (key: string) => fixture.get(`${number}.${key}`).values;
  const model = new GPT(config, { device });
  loadWeights(model, fixture, "w");
  const lists = (key: string): number[][] | undefined => {
    let at = 0;
    return fixture.tensors.has(`${number}.${key}`)
      ? test.rows.map(({ ids, from }) => [...expected(key).subarray(at, at += ids.length - from)])
      : undefined;
  };
  const rollouts = test.rows.map(({ ids, group, ...row }) => ({
    ...row,
    ids: Int32Array.from(ids),
    promptIndex: group,
  }));
  const given = { rollouts, old: lists("old"), reference: lists("ref") }, weights = test.rewardWeights;
  const each = weights.map((_, i) =>
    Float64Array.from(rollouts, (_, r) => expected("rewards")[r * weights.length + i])
  );
  const total = Float64Array.from(rollouts, (_, r) => weights.reduce((sum, weight, i) => sum + weight * each[i][r], 0));
  const scores = {
    total,
    each: Object.fromEntries(["first", "second"].slice(0, weights.length).map((n, i) => [n, each[i]])),
  };
  const batchSize = updates[0][0].length, first = [...new Set(updates.flat(2))];
  const stepsPerGeneration = rollouts.length / batchSize, numIterations = updates.flat().length / stepsPerGeneration;
  const options: PolicyGradientOptions = {
    ...test,
    ...{ method, batchSize, stepsPerGeneration, numIterations },
    maxNewTokens: test.maxCompletionLength,
    useBiasCorrectionKl: test.biasCorrection,
    rewards: [plainReward("none", () => 0)],
    decode: () => "",
    reference: model, // not used: the fixture has the reference's log-probabilities
  };
  const made = judgeGroups(given, scores, {
    ...{ lossType: "dapo", scaleRewards: "group", importanceSamplingLevel: "token", ...test },
    ...{ method, maxNewTokens: test.maxCompletionLength },
  });
  const close = { atol: 1e-12, rtol: 1e-12 };
  assertClose(made.advantages, expected("advantages"), close, `${name}: advantages`);
  if (test.name.includes("equal rewards")) assertEquals([...made.advantages.slice(-4)], [0, 0, 0, 0]);

  const prompts = [
    ...new Map(test.rows.map((row) => [row.group, { ids: Int32Array.from(row.ids.slice(0, row.from)), prompt: "" }]))
      .values(),
  ];
  const newTask = () => {
    const task = new PolicyGradient(model, { train: prompts, val: prompts }, options);
    const inOrder = <T>(all: ArrayLike<T>) => first.map((i) => all[i]); // in the order of the micro-batches
    const iteration = {
      rollouts: rolloutsToJSON(inOrder(rollouts)),
      old: inOrder(given.old!),
      ...given.reference && { reference: inOrder(given.reference) },
      advantages: inOrder(made.advantages),
      measures: made.measures,
      drawn: 0,
    };
    const place = { epoch: 0, place: 0, prompts: prompts.length, completions: 0, completionTokens: 0 };
    task.restore({ ...place, iteration: JSON.parse(JSON.stringify(iteration)) }, "fixture");
    return task;
  };
  const limit = (kind: "modules" | "gradients" | "trained", values: ArrayLike<number> = []) =>
    limitOf(device, kind, values);

  if (!test.learningRate) {
    using task = newTask();
    const losses: number[] = [], found: Record<string, number> = { ...made.measures };
    for await (const { arrays, weight } of task.draw({ count: updates[0].length } as Parameters<typeof task.draw>[0])) {
      const batch: Record<string, Tensor> = {};
      for (const [key, { values, shape }] of Object.entries(arrays)) {
        batch[key] = device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" });
      }
      const { loss, outputs } = task.loss(model, batch);
      loss.backward(device.tensor([weight!], []));
      losses.push(weight! * await loss.item());
      (await outputs.data()).forEach((value, i) => found[task.measures[i]] = value);
      for (const tensor of [...Object.values(batch), loss, outputs]) tensor.dispose();
    }
    assertClose([losses.reduce((a, b) => a + b)], expected("losses"), limit("modules"), `${name}: loss`);
    const values = metrics.length > 0 ? expected("m") : [];
    assertClose(metrics.map((name) => found[name] ?? NaN), values, limit("modules"), `${name}: ${metrics}`);
    for (const [key, parameter] of model.namedParameters()) {
      const values = expected(`g.w.${key}`);
      assertClose(await parameter.grad!.data(), values, limit("gradients", values), `${name}: gradient of ${key}`);
    }
  } else {
    const { learningRate, weightDecay, betas: [beta1, beta2], gradClip } = test;
    const run = {
      gradientAccumulationSteps: updates[0].length,
      maxIters: updates.length,
      evalInterval: 100,
      evalIters: 1,
    };
    const rates = { learningRate, decayLr: false, warmupIters: 0, weightDecay, beta1, beta2, gradClip };
    using task = newTask();
    using trainer = new Trainer(model, task, { ...run, ...rates, finalEvaluation: true, logInterval: 1 });
    const parameters = Array.from(model.namedParameters(), ([key, one]) => [`w.${key}`, one] as const);
    await assertUpdates(trainer, { name, parameters, expected });
  }
  model.dispose();
}

for (const method of ["grpo", "rloo"] as const) {
  const fixture = readFixture<GroupCase>(method);
  for (const device of await devices()) {
    for (const [number, { name }] of fixture.cases.entries()) {
      Deno.test(`${method.toUpperCase()}, ${name} (${device.name})`, () => check(device, fixture, number, method));
    }
  }
}
