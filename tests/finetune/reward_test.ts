/** Reward models: losses computed by hand, resuming, errors, and data whose best possible accuracy is known. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { createDevice } from "../../src/device/create.ts";
import type { Device } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { HeadRows } from "../../src/finetune/head_rows.ts";
import { headScores } from "../../src/finetune/head_passes.ts";
import { SequenceClassifier } from "../../src/finetune/heads.ts";
import { rewardDescription, RewardModelling, type RewardModellingOptions } from "../../src/finetune/reward.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { trainingNeeds } from "../../src/train/memory.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { inFolder, openDevice } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 40, vocabSize: 6, nLayer: 1, nHead: 2, nEmbd: 16, dropout: 0.3, bias: true };

/** Rankings of texts as rows, all with the same margin. */
function rowsOf(all: readonly (readonly number[])[][], margin = 0): HeadRows {
  const rows = new HeadRows();
  for (const [i, texts] of all.entries()) rows.add(texts, { where: `row ${i}`, label: margin });
  return rows;
}
/** Random rankings of 2 to 4 texts. Each text has 1 to 39 tokens. */
function drawn(count: number, seed: number): number[][][] {
  const generator = new RandomGenerator(seed);
  const text = () => Array.from({ length: 1 + generator.randint(39) }, () => generator.randint(6));
  return Array.from({ length: count }, () => Array.from({ length: 2 + generator.randint(3) }, text));
}

/** A task whose model gives the texts [0] and [1] the scores 1.5 and 0.5. */
async function known(device: Device, options: Partial<RewardModellingOptions> & { margin?: number } = {}) {
  const model = new GPT({ ...CONFIG, nEmbd: 4 }, { device, seed: 2 }).eval(), head = new SequenceClassifier(model, 1);
  const [h, g] = await Promise.all(
    [0, 1].map((id) => model.hidden(device.tensor([id], [1, 1], { dtype: "i32" })).data()),
  );
  const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((sum, x, i) => sum + x * b[i], 0);
  const [hh, hg, gg] = [dot(h, h), dot(h, g), dot(g, g)], det = hh * gg - hg * hg;
  const [a, b] = [(1.5 * gg - 0.5 * hg) / det, (0.5 * hh - 1.5 * hg) / det]; // the head's weight is a h + b g
  device.write(head.score.weight.storage, Float64Array.from(h, (x, i) => a * x + b * g[i]));
  const rows = rowsOf([[[0], [1]]], options.margin), how = { batchSize: 1, maxLength: 40, ...options, head };
  return { model, task: new RewardModelling(model, { train: rows, val: rows }, how) };
}
const tensors = (device: Device, arrays: Parameters<RewardModelling["measure"]>[1]["arrays"]): Record<string, Tensor> =>
  Object.fromEntries(
    Object.entries(arrays).map(([name, { values, shape }]) => {
      return [name, device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" })];
    }),
  );

Deno.test("the losses of the scores 1.5 and 0.5 are the values computed by hand, also with a margin and with centering", async () => {
  const device = await createDevice("reference");
  const cases = [[{}, 0.3132617], [{ margin: 0.5 }, 0.4740770], [{ centering: 0.01 }, 0.3132617 + 0.04]] as const;
  for (const [options, expected] of cases) {
    const { model, task } = await known(device, options), [{ arrays }] = task.draw({ count: 1 });
    const { loss, outputs } = task.loss(model, tensors(device, arrays));
    assertAlmostEquals(await loss.item(), expected, 1e-7);
    for (const [i, value] of [1, 1, 0.5, 1, 1.5].entries()) assertAlmostEquals((await outputs.data())[i], value, 1e-12);
  }
  device.close();
});

Deno.test("the calibration error does not depend on how pairs are divided into batches", async () => {
  const device = await createDevice("cpu", { threads: 1 });
  const model = new GPT(CONFIG, { device }), pairs = Array.from({ length: 10 }, () => [[0], [1]]);
  // Differences of scores. Six pairs are predicted with confidence 0.8, four of them rightly; four pairs with confidence
  // 0.6, one of them rightly.
  const gap = (p: number) => Math.log(p / (1 - p)), gaps = [0.8, 0.8, 0.8, 0.8, 0.2, 0.2, 0.6, 0.4, 0.4, 0.4].map(gap);
  const expected = (6 * Math.abs(4 / 6 - 0.8) + 4 * Math.abs(1 / 4 - 0.6)) / 10;
  for (const batchSize of [10, 4, 3]) {
    const rows = rowsOf(pairs), options = { batchSize, maxLength: 40 };
    const task = new RewardModelling(model, { train: rows, val: rows }, options), means: Record<string, number> = {};
    let at = 0;
    for (const batch of task.evaluate("val", { count: 10 })) {
      const scores = Array.from({ length: 2 * batchSize }, (_, i) => i % 2 ? 0 : gaps[at + i / 2] ?? 9);
      for (const [name, value] of Object.entries(task.measure(Float32Array.of(0, 0, 0, 0, 0, ...scores), batch))) {
        means[name] = (means[name] ?? 0) + value * batch.weight! / 10;
      }
      at += batchSize;
    }
    const found = task.conclude(means);
    assertAlmostEquals(found.calibration_error, expected, 1e-6);
    assertEquals(Object.keys(found), [
      "accuracy",
      "margin",
      "min_reward",
      "mean_reward",
      "max_reward",
      "calibration_error",
    ]);
  }
  device.close();
});

Deno.test("the accumulated gradient of micro-batches is the gradient of all rankings at once, and padding has no effect", async () => {
  const device = await createDevice("reference"), all = drawn(7, 1), rows = rowsOf(all, 0.3);
  const gradients = async (batchSize: number, count: number) => {
    const model = new GPT(CONFIG, { device, seed: 4 }); // dropout in the config must have no effect
    const options = { batchSize, maxLength: 40, centering: 0.1, shuffle: false };
    const task = new RewardModelling(model, { train: rows, val: rows }, options);
    for (const { arrays, weight } of task.draw({ count })) {
      task.loss(model.train(), tensors(device, arrays)).loss.backward(device.tensor([weight!], []));
    }
    const parameters = [...model.parameters(), task.module.score.weight];
    return (await Promise.all(parameters.map(async ({ grad }) => Array.from(await grad!.data())))).flat();
  };
  const whole = await gradients(7, 1), largest = Math.max(...whole.map(Math.abs));
  for (const [i, value] of (await gradients(2, 4)).entries()) assert(Math.abs(value - whole[i]) < 1e-13 * largest);
  device.close();
});

for (const name of ["reference", "cpu"]) {
  Deno.test(`a reward model: a run stopped in an epoch resumes bit for bit (${name})`, () =>
    inFolder(async (path) => {
      const device = await openDevice(name, { threads: 1 }),
        rows = { train: rowsOf(drawn(11, 1)), val: rowsOf(drawn(3, 2)) };
      const setup = (folder: RunFolder) => {
        const model = new GPT(CONFIG, { device, seed: 1 }),
          task = new RewardModelling(model, rows, { batchSize: 2, maxLength: 40 });
        const sizes = { gradientAccumulationSteps: 2, maxIters: 8, evalInterval: 4, evalIters: 2, logInterval: 1 };
        return new Trainer(model, task, { ...sizes, learningRate: 1e-2, warmupIters: 0, decayLr: false, folder });
      };
      const newRun = (name: string) =>
        RunFolder.create(`${path}/${name}`, { flags: {}, model: { ...CONFIG }, vocabulary: {} });
      const losses = async (trainer: Trainer, until = Infinity) => {
        const found: number[] = [], controller = new AbortController();
        for await (const event of trainer.run({ signal: controller.signal })) {
          if (event.kind === "step") found.push(event.loss);
          if (found.length === until) controller.abort();
        }
        return found;
      };
      const whole = await losses(setup(await newRun("a"))), begun = await losses(setup(await newRun("b")), 4);
      const resumed = setup(await RunFolder.open(`${path}/b`));
      await resumed.resume();
      assertEquals([...begun, ...await losses(resumed)], whole);
      const bytes = async (run: string, file: string) => {
        const { name } = await (await RunFolder.open(`${path}/${run}`)).checkpoint("last");
        return await Deno.readFile(`${path}/${run}/${name}/${file}.safetensors`);
      };
      for (const file of ["model", "task", "optimizer"]) assertEquals(await bytes("b", file), await bytes("a", file));
      device.close();
    }));
}

Deno.test("a reward model takes as much memory as estimated", async () => {
  const device = await createDevice("cpu", { threads: 1 });
  // Each of the lengths to which batches are padded occurs.
  const lengths = [10, 20, 39].map((length) => [Array(length).fill(1), Array(length).fill(2), [3]]);
  const rows = { train: rowsOf([...lengths, ...lengths, ...lengths]), val: rowsOf(lengths) };
  const sizes = { gradientAccumulationSteps: 3, evalIters: 3 },
    taskOf = (model: GPT) => new RewardModelling(model, rows, { batchSize: 1, maxLength: 40 });
  const planned = new GPT(CONFIG, { device }), task = (model: GPT) => taskOf(planned).rehearsal(model);
  const { bytes } = await trainingNeeds(CONFIG, { ...sizes, device, task });
  planned.dispose();
  const idle = device.memory().reserved, model = new GPT(CONFIG, { device });
  using trainer = new Trainer(model, taskOf(model), { ...sizes, maxIters: 12, evalInterval: 5 });
  for await (const _ of trainer.run());
  const taken = device.memory().reserved - idle;
  assert(taken <= bytes && bytes < 1.15 * taken, `${taken} bytes of ${bytes}`);
  device.close();
});

Deno.test("rankings with a single, empty or too long text, and a head with two labels, are refused", async () => {
  const device = await createDevice("cpu", { threads: 1 }),
    model = new GPT(CONFIG, { device }),
    good = rowsOf([[[0], [1]]]);
  const refused = (train: HeadRows, message: string, options: Partial<RewardModellingOptions> = {}) => {
    const make = () => new RewardModelling(model, { train, val: good }, { batchSize: 1, maxLength: 8, ...options });
    assertStringIncludes((assertThrows(make) as Error).message, message);
  };
  refused(rowsOf([]), "Reward model: there are no rows to train on");
  refused(rowsOf([[[0], [1]], [[2]]]), "row 1 has 1 text; expected two or more, best first");
  refused(rowsOf([[[0], []]]), "row 0: a text has no token");
  refused(rowsOf([[[0], Array(9).fill(1)]]), "row 0 has a text of 9 tokens; expected at most 8");
  refused(rowsOf([[[0], [1]]], NaN), "row 0: the margin is NaN, expected a number");
  refused(good, "centering is -1; expected a number, 0 or above", { centering: -1 });
  refused(good, "The head has 2 labels; expected 1, the reward", { head: new SequenceClassifier(model, 2) });
  device.close();
});

Deno.test("a reward model reaches 98 % of the accuracy that the noise in its labels allows", async () => {
  const device = await createDevice("cpu", { threads: 2 }), generator = new RandomGenerator(5);
  const text = () => Array.from({ length: 8 }, () => generator.randint(4));
  // The true score: the number of 0s minus the number of 3s, plus 2 if the text begins with 1.
  const rule = (ids: readonly number[]) => ids.reduce((sum, id) => sum + [1, 0, 0, -1][id], ids[0] === 1 ? 2 : 0);
  const chance = (better: readonly number[], worse: readonly number[]) =>
    1 / (1 + Math.exp(rule(worse) - rule(better)));
  const pair = () => {
    const [one, other] = [text(), text()];
    return generator.randint(1e6) / 1e6 < chance(one, other) ? [one, other] : [other, one];
  };
  const pairs = Array.from({ length: 3000 }, pair), held = Array.from({ length: 1000 }, pair);
  const model = new GPT({ vocabSize: 4, blockSize: 16, nLayer: 1, nHead: 2, nEmbd: 32 }, { device, seed: 1 });
  const task = new RewardModelling(model, { train: rowsOf(pairs), val: rowsOf(held) }, {
    batchSize: 64,
    maxLength: 16,
  });
  const options = {
    gradientAccumulationSteps: 1,
    maxIters: 280,
    evalInterval: 1000,
    evalIters: 16,
    learningRate: 3e-3,
  };
  const trainer = new Trainer(model, task, {
    ...options,
    warmupIters: 10,
    lrDecayIters: 200,
    minLr: 0,
    finalEvaluation: true,
  });
  let measures: Readonly<Record<string, number>> = {};
  for await (const event of trainer.run()) if (event.kind === "evaluation") measures = event.measures;
  const scores = async (which: 0 | 1) => {
    const rows = new HeadRows();
    for (const texts of held) rows.add([texts[which]], { where: "held out", label: 0 });
    return await headScores(model, task.module, { description: rewardDescription(), rows, batchSize: 100 });
  };
  const [better, worse] = [await scores(0), await scores(1)];
  let reached = 0, best = 0;
  for (const [i, [one, other]] of held.entries()) { // expected value of the accuracy, over the random labels
    const p = chance(one, other);
    reached += better[i][0] > worse[i][0] ? p : 1 - p;
    best += Math.max(p, 1 - p);
  }
  assert(best / held.length < 0.9, `labels are noisy: the best accuracy is ${best / held.length}`);
  assert(reached / best >= 0.98, `${reached / best} of the best accuracy`);
  assertAlmostEquals(measures.val_accuracy, reached / held.length, 0.03); // measured with the labels that were drawn
  assert(measures.val_calibration_error < 0.08, `its probabilities are off by ${measures.val_calibration_error}`);
  device.close();
});
