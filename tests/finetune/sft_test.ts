/** Supervised tuning as a task of the trainer: which rows an update takes, how they are weighted, and resuming. */
import { assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { TokenRows } from "../../src/data/token_rows.ts";
import { createDevice } from "../../src/device/create.ts";
import { SupervisedTuning } from "../../src/finetune/sft.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { CheckpointError, DataError } from "../../src/errors.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import type { TrainerOptions } from "../../src/train/options.ts";
import type { MicroBatch } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, inFolder } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 48, vocabSize: 11, nLayer: 1, nHead: 2, nEmbd: 8, dropout: 0.2, bias: true };

/** Rows whose first token is their number. The second half of each row is learned. */
function rowsOf(lengths: readonly number[]): TokenRows {
  const rows = new TokenRows();
  for (const [i, length] of lengths.entries()) {
    const ids = Int32Array.from({ length }, (_, t) => t === 0 ? i : t % 11);
    rows.push({ ids, learned: Uint8Array.from({ length }, (_, t) => 2 * t >= length ? 1 : 0) });
  }
  return rows;
}

const LENGTHS = [4, 40, 7, 12, 33, 3, 9];
const rows = { train: rowsOf(LENGTHS), val: rowsOf([5, 6, 20]) };
const options = { batchSize: 2, maxLength: 48, seed: 3 };

async function withModel<T>(body: (model: GPT) => T | Promise<T>): Promise<T> {
  const device = await createDevice("cpu", { threads: 1 });
  try {
    return await body(new GPT(CONFIG, { device, generator: new RandomGenerator(1) }));
  } finally {
    device.close();
  }
}

const shapeOf = ({ arrays: { tokens } }: MicroBatch) => tokens.shape;
const labelsIn = ({ arrays: { targets } }: MicroBatch) => [...targets.values].filter((id) => id >= 0).length;
/** The numbers of a batch's rows, without rows of padding, which have no target. */
function numbersIn({ arrays: { tokens, targets } }: MicroBatch): number[] {
  const [B, T] = tokens.shape, all = Array.from({ length: B }, (_, b) => b);
  return all.filter((b) => targets.values.subarray(b * T, (b + 1) * T).some((id) => id >= 0)).map((b) =>
    tokens.values[b * T]
  );
}

Deno.test("an epoch takes every row once, and micro-batches are weighted by their learned tokens", () =>
  withModel((model) => {
    const task = new SupervisedTuning(model, rows, options);
    assertEquals([task.microBatches("train"), task.microBatches("val")], [4, 2]);
    for (let epoch = 0; epoch < 2; epoch++) {
      const updates = Array.from({ length: 2 }, () => [...task.draw({ count: 2 })]);
      assertEquals(updates.map((batches) => batches.map((batch) => numbersIn(batch).length)), [[2, 2], [2, 1]]);
      assertEquals(updates.flat().flatMap(numbersIn).sort(), [0, 1, 2, 3, 4, 5, 6]);
      assertEquals(task.drawn(), { num_tokens: 108 * (epoch + 1) }); // the sum of LENGTHS in each epoch
      for (const batches of updates) {
        const all = batches.reduce((sum, batch) => sum + labelsIn(batch), 0);
        for (const batch of batches) assertEquals(batch.weight, labelsIn(batch) / all);
        assertAlmostEquals(batches.reduce((sum, { weight }) => sum + weight!, 0), 1, 1e-12);
      }
      for (const batch of updates.flat()) {
        const longest = Math.max(...numbersIn(batch).map((row) => LENGTHS[row]));
        assertEquals(shapeOf(batch), [2, longest > 24 ? 48 : longest > 16 ? 24 : 16]);
      }
    }
  }));

Deno.test("targets are the learned tokens, each at the position before it", () =>
  withModel((model) => {
    const task = new SupervisedTuning(model, { ...rows, train: rowsOf([5, 4]) }, { ...options, shuffle: false });
    const [{ arrays: { tokens, targets } }] = task.draw({ count: 1 });
    assertEquals([...tokens.values.subarray(0, 7)], [0, 1, 2, 3, 4, 0, 0]);
    assertEquals([...targets.values.subarray(0, 7)], [-1, -1, 3, 4, -1, -1, -1]);
    assertEquals([...targets.values.subarray(16, 21)], [-1, 2, 3, -1, -1]);
  }));

Deno.test("packed rows and padding follow each other in a bin, and each has its own start and positions", () =>
  withModel((model) => {
    const packed = { ...options, batchSize: 1, maxLength: 16, packing: true, shuffle: false };
    const task = new SupervisedTuning(model, { ...rows, train: rowsOf([4, 7, 3, 13]), val: rowsOf([2]) }, packed);
    const [[first], [second]] = Array.from({ length: 2 }, () => [...task.draw({ count: 1 })]);
    const read = ({ arrays }: MicroBatch) => Object.values(arrays).map(({ values }) => [...values].join(" "));
    assertEquals(read(first), [ // the row of 13 tokens, then the row of 3
      "3 1 2 3 4 5 6 7 8 9 10 0 1 2 1 2",
      "-1 -1 -1 -1 -1 -1 7 8 9 10 0 1 -1 -1 2 -1",
      "0 0 0 0 0 0 0 0 0 0 0 0 0 13 13 13",
      "0 1 2 3 4 5 6 7 8 9 10 11 12 0 1 2",
      "7", // learned tokens
    ]);
    assertEquals(read(second), [ // the row of 7 tokens, then the row of 4, then padding
      "1 1 2 3 4 5 6 0 1 2 3 0 0 0 0 0",
      "-1 -1 -1 4 5 6 -1 -1 2 3 -1 -1 -1 -1 -1 -1",
      "0 0 0 0 0 0 0 7 7 7 7 11 11 11 11 11",
      "0 1 2 3 4 5 6 0 1 2 3 0 0 0 0 0",
      "5",
    ]);
  }));

Deno.test("no rows, rows that are too long, and rows without a learned token are refused", () =>
  withModel((model) => {
    const refused = (train: TokenRows, message: string) =>
      assertThrows(() => new SupervisedTuning(model, { ...rows, train }, options), DataError, message);
    refused(new TokenRows(), "train has no rows");
    refused(rowsOf([4, 49]), "row 1 of train has 49 tokens, expected at most 48");
    refused(rowsOf([4, 3, 1]), "row 2 of train has no token that is learned"); // its only learned token is the first
  }));

const TRAINING: Partial<TrainerOptions> = {
  ...{ gradientAccumulationSteps: 2, maxIters: 7, evalInterval: 4, evalIters: 9, logInterval: 1 },
  ...{ learningRate: 1e-2, decayLr: false, finalEvaluation: true },
};
const DESCRIPTION = { flags: {}, model: { ...CONFIG }, vocabulary: {} };

/** Trains, and stops after `stopAt` updates. @returns the losses */
async function run(
  path: string,
  { stopAt = Infinity, resume = false, packing = false, patience = 0, learningRate = 1e-2 } = {},
): Promise<number[]> {
  return await withModel(async (model) => {
    const folder = resume ? await RunFolder.open(path) : await RunFolder.create(path, DESCRIPTION);
    const task = new SupervisedTuning(model, rows, { ...options, packing });
    const stop = new AbortController(), losses: number[] = [];
    using trainer = new Trainer(model, task, { ...TRAINING, patience, learningRate, folder });
    if (resume) await trainer.resume();
    for await (const event of trainer.run({ signal: stop.signal })) {
      if (event.kind === "step") losses.push(event.loss);
      if (event.kind === "evaluation") losses.push(event.valLoss);
      if (trainer.iter >= stopAt) stop.abort();
    }
    return losses;
  });
}

async function lastFiles(path: string): Promise<Uint8Array[]> {
  const { last } = JSON.parse(await Deno.readTextFile(`${path}/run.json`));
  const names = ["model.safetensors", "optimizer.safetensors", "state.json"];
  return await Promise.all(names.map((name) => Deno.readFile(`${path}/${last}/${name}`)));
}

Deno.test("a run stopped in the middle of an epoch resumes to the same bytes", () =>
  inFolder(async (path) => {
    for (const packing of [false, true]) {
      const whole = await run(`${path}/${packing}`, { packing });
      assertEquals(whole.length, 10); // 7 updates; evaluations before the first and fifth updates and at the end
      for (const stopAt of [1, 3, 4]) {
        const out = `${path}/${packing}-${stopAt}`, losses = await run(out, { packing, stopAt });
        assertEquals([...losses, ...await run(out, { packing, resume: true })], whole, `stopped at ${stopAt}`);
        assertEquals(await lastFiles(out), await lastFiles(`${path}/${packing}`), `stopped at ${stopAt}`);
      }
    }
    await assertRejects(
      () => run(`${path}/true`, { resume: true }),
      CheckpointError,
      "its packing is true, expected false",
    );
  }));

Deno.test("training stops after `patience` evaluations without a lower loss, and does not continue when resumed", () =>
  inFolder(async (path) => {
    const losses = await run(path, { patience: 1, learningRate: 0 });
    assertEquals(losses.length, 6); // an evaluation, 4 updates, and an evaluation with the same loss
    assertEquals(await run(path, { patience: 1, learningRate: 0, resume: true }), []);
    const { last, best } = JSON.parse(await Deno.readTextFile(`${path}/run.json`));
    assertEquals([last, best], ["checkpoint-000004", undefined]);
    assertEquals((await run(path, { patience: 2, learningRate: 0, resume: true })).length, 4); // the run continues for 3 updates and an evaluation
  }));

Deno.test("rows give the same loss and gradients separately, packed, and divided into other micro-batches", async () => {
  const device = await createDevice("reference"), found: (readonly number[])[] = [];
  const ways = [[7, false], [2, false], [1, true], [5, true]] as const;
  for (const [batchSize, packing] of ways) {
    const model = new GPT({ ...CONFIG, dropout: 0 }, { device, generator: new RandomGenerator(1) });
    const task = new SupervisedTuning(model, rows, { ...options, batchSize, packing });
    let loss = 0;
    for (const { arrays, weight } of task.draw({ count: 9 })) {
      const batch: Record<string, Tensor> = {};
      for (const [name, { values, shape }] of Object.entries(arrays)) {
        batch[name] = device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" });
      }
      const { loss: mean } = task.loss(model, batch);
      mean.backward(device.tensor([weight!], []));
      loss += weight! * await mean.item();
    }
    const gradients = await Promise.all([...model.parameters()].map(async ({ grad }) => [...await grad!.data()]));
    found.push([loss, ...gradients.flat()]);
  }
  for (const [i, way] of ways.entries()) assertClose(found[i], found[0], { atol: 1e-14, rtol: 1e-12 }, `${way}`);
  device.close();
});
