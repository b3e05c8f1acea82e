/** Supervised tuning as a task of the trainer: which rows an update takes, what they weigh, and runs that go on. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { createDevice } from "../../src/device/create.ts";
import type { TokenRows } from "../../src/finetune/rows.ts";
import { SupervisedTuning } from "../../src/finetune/sft.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import type { TrainerOptions } from "../../src/train/options.ts";
import type { MicroBatch } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { inFolder } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 48, vocabSize: 11, nLayer: 1, nHead: 2, nEmbd: 8, dropout: 0.2, bias: true };

/** Rows that begin with their number; the last half of each is learned. */
function rowsOf(lengths: readonly number[]): TokenRows {
  const rows = lengths.map((length, i) => ({
    ids: Int32Array.from({ length }, (_, t) => t === 0 ? i : t % 11),
    learned: Uint8Array.from({ length }, (_, t) => 2 * t >= length ? 1 : 0),
  }));
  return { length: rows.length, row: (i) => rows[i] };
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
/** Numbers of a batch's rows; those of nothing have no target. */
function numbersIn({ arrays: { tokens, targets } }: MicroBatch): number[] {
  const [B, T] = tokens.shape, all = Array.from({ length: B }, (_, b) => b);
  return all.filter((b) => targets.values.subarray(b * T, (b + 1) * T).some((id) => id >= 0)).map((b) =>
    tokens.values[b * T]
  );
}

Deno.test("an epoch goes through every row once, in updates whose micro-batches count by their learned tokens", () =>
  withModel((model) => {
    const task = new SupervisedTuning(model, rows, options), generator = new RandomGenerator(1);
    assertEquals(task.updatesPerEpoch(2), 2);
    for (let epoch = 0; epoch < 2; epoch++) {
      const updates = Array.from({ length: 2 }, () => [...task.draw({ count: 2, generator })]);
      assertEquals(updates.map((batches) => batches.map((batch) => numbersIn(batch).length)), [[2, 2], [2, 1]]);
      assertEquals(updates.flat().flatMap(numbersIn).sort(), [0, 1, 2, 3, 4, 5, 6]);
      for (const batches of updates) {
        const all = batches.reduce((sum, batch) => sum + labelsIn(batch), 0);
        for (const batch of batches) assertEquals(batch.weight, labelsIn(batch) / all);
        assertAlmostEquals(batches.reduce((sum, { weight }) => sum + weight!, 0), 1, 1e-12);
      }
      for (const batch of updates.flat()) {
        const longest = Math.max(...numbersIn(batch).map((row) => LENGTHS[row]));
        assertEquals(shapeOf(batch), [2, longest > 32 ? 48 : 32]);
      }
    }
  }));

Deno.test("targets are the learned tokens, each at the token before it", () =>
  withModel((model) => {
    const task = new SupervisedTuning(model, { ...rows, train: rowsOf([5, 4]) }, { ...options, shuffle: false });
    const [{ arrays: { tokens, targets } }] = task.draw({ count: 1, generator: new RandomGenerator(1) });
    assertEquals([...tokens.values.subarray(0, 7)], [0, 1, 2, 3, 4, 0, 0]);
    assertEquals([...targets.values.subarray(0, 7)], [-1, -1, 3, 4, -1, -1, -1]);
    assertEquals([...targets.values.subarray(32, 37)], [-1, 2, 3, -1, -1]);
  }));

const TRAINING: Partial<TrainerOptions> = {
  ...{ gradientAccumulationSteps: 2, maxIters: 7, evalInterval: 4, evalIters: 9, logInterval: 1 },
  ...{ learningRate: 1e-2, decayLr: false, finalEvaluation: true },
};
const DESCRIPTION = { flags: {}, model: { ...CONFIG }, vocabulary: {} };

/** Trains, and stops when so many updates were made. @returns the losses */
async function run(path: string, { stopAt = Infinity, resume = false } = {}): Promise<number[]> {
  return await withModel(async (model) => {
    const folder = resume ? await RunFolder.open(path) : await RunFolder.create(path, DESCRIPTION);
    const task = new SupervisedTuning(model, rows, options), stop = new AbortController(), losses: number[] = [];
    using trainer = new Trainer(model, task, { ...TRAINING, folder });
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

Deno.test("a run that was stopped in the middle of an epoch goes on to the same bytes", () =>
  inFolder(async (path) => {
    const whole = await run(`${path}/whole`);
    for (const stopAt of [1, 3, 4]) {
      const out = `${path}/${stopAt}`, losses = await run(out, { stopAt });
      assertEquals([...losses, ...await run(out, { resume: true })], whole, `stopped at ${stopAt}`);
      assertEquals(await lastFiles(out), await lastFiles(`${path}/whole`), `stopped at ${stopAt}`);
    }
  }));
