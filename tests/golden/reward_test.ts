/**
 * The reward model against plain PyTorch (alignment.py): scores, losses, measures and gradients of an update, and four
 * updates by the trainer.
 */
import type { Tensor } from "../../src/engine/tensor.ts";
import { HeadRows } from "../../src/finetune/head_rows.ts";
import { SequenceClassifier } from "../../src/finetune/heads.ts";
import { RewardModelling } from "../../src/finetune/reward.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { type Measures, namedMeasures } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { assertUpdates } from "./updates.ts";
import { loadWeights } from "./weights.ts";

type Text = readonly number[];
interface RewardCase {
  readonly name: string;
  readonly config: GPTConfig;
  readonly rows: readonly ({ chosen: Text; rejected: Text; margin?: number } | { ranked: readonly Text[] })[];
  readonly updates: readonly (readonly (readonly number[])[])[];
  readonly centerRewardsCoefficient?: number;
  readonly metrics?: readonly string[];
  readonly learningRate?: number;
  readonly weightDecay: number;
  readonly betas: readonly [number, number];
  readonly gradClip: number;
}

async function check({ device }: TestDevice, fixture: Fixture<RewardCase>, number: number) {
  const test = fixture.cases[number], { name, config, updates } = test;
  const expected = (key: string) => fixture.get(`${number}.${key}`).values;
  const model = new GPT(config, { device }), head = new SequenceClassifier(model, 1), rows = new HeadRows();
  loadWeights(model, fixture, "w");
  loadWeights(head, fixture, "h");
  for (const row of test.rows) {
    if ("ranked" in row) rows.add(row.ranked, { where: name, label: 0 });
    else rows.add([row.chosen, row.rejected], { where: name, label: row.margin ?? 0 });
  }
  const newTask = (batchSize: number) =>
    new RewardModelling(model, { train: rows, val: rows }, {
      ...{ batchSize, maxLength: config.blockSize!, centering: test.centerRewardsCoefficient, head, shuffle: false },
    });
  const parameters: [string, Tensor][] = [
    ...[...model.namedParameters()].map(([key, one]): [string, Tensor] => [`w.${key}`, one]),
    ["h.score.weight", head.score.weight],
  ];

  if (!test.learningRate) {
    const whole = test.rows.length, batch: Record<string, Tensor> = {}, task = newTask(whole);
    const [{ arrays, weight }] = task.draw({ count: 1 });
    for (const [key, { values, shape }] of Object.entries(arrays)) {
      batch[key] = device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" });
    }
    const judged = task.judge(model, batch), outputs = await judged.outputs.data();
    const scores = outputs.subarray(task.measures.length), K = scores.length / whole;
    const ranked = test.rows.flatMap((row, i) => "ranked" in row ? row.ranked.map((_, k) => scores[i * K + k]) : []);
    const pairs = [0, 1].flatMap((which) => test.rows.map((_, i) => scores[i * K + which]));
    assertClose(ranked.length > 0 ? ranked : pairs, expected("scores"), limitOf(device, "modules"), `${name}: scores`);
    const means = task.conclude(task.measure(outputs, { arrays })), made = task.loss(model, batch);
    made.loss.backward(device.tensor([weight!], []));
    const measures = namedMeasures(task.measures, await made.outputs.data()), order = test.metrics!;
    for (const loss of [made.loss, judged.loss]) {
      assertClose([await loss.item()], expected("losses").subarray(0, 1), limitOf(device, "modules"), `${name}: loss`);
    }
    for (const found of [measures, means].map((one): Measures => ({ ...one, ...task.drawn() }))) {
      assertClose(order.map((key) => found[key]), expected("m"), limitOf(device, "modules"), `${name}: ${order}`);
    }
    for (const [key, parameter] of parameters) {
      const values = expected(`g.${key}`);
      if (key === "w.lm_head.weight") continue; // tied to the embedding, under whose name PyTorch lists it
      // Adding a constant to all scores changes no difference, so its gradient consists of the rounding errors of sums of size 1.
      const size = key === "w.transformer.ln_f.bias" && !test.centerRewardsCoefficient ? [1] : values;
      assertClose(
        await parameter.grad!.data(),
        values,
        limitOf(device, "gradients", size),
        `${name}: gradient of ${key}`,
      );
    }
  } else {
    const { learningRate, weightDecay, betas: [beta1, beta2], gradClip } = test;
    const count = updates[0].length, sizes = { gradientAccumulationSteps: count, maxIters: updates.length };
    const rates = { learningRate, decayLr: false, warmupIters: 0, weightDecay, beta1, beta2, gradClip };
    const intervals = { evalInterval: 100, evalIters: 1, logInterval: 1, finalEvaluation: true };
    using trainer = new Trainer(model, newTask(updates[0][0].length), { ...sizes, ...rates, ...intervals });
    await assertUpdates(trainer, { name, parameters, expected });
  }
  head.dispose();
  model.dispose();
}

const fixture = readFixture<RewardCase>("reward");
for (const device of await devices()) {
  for (const [number, { name }] of fixture.cases.entries()) {
    Deno.test(`reward model, ${name} (${device.name})`, () => check(device, fixture, number));
  }
}
