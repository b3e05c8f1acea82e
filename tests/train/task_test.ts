/**
 * Tests of the trainer with its own tasks: a small classifier with a head, asynchronous batches and two batch shapes.
 */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { createDevice } from "../../src/device/create.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import type { Device } from "../../src/engine/device.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { CheckpointError, ConfigError, DataError, DeviceError, TrainingError } from "../../src/errors.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { turn } from "../../src/loop/breather.ts";
import { Linear, Module } from "../../src/nn/mod.ts";
import { add, concat, crossEntropy, reshape, slice } from "../../src/ops/mod.ts";
import { AdamW, type AdamWOptions } from "../../src/optim/adamw.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { trainingNeeds } from "../../src/train/memory.ts";
import type { TrainerOptions } from "../../src/train/options.ts";
import type { DrawOptions, MicroBatch, Task } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { inFolder, openDevice } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 6, vocabSize: 9, nLayer: 2, nHead: 2, nEmbd: 16, dropout: 0.2, bias: true };
const OPTIONS: Partial<TrainerOptions> = {
  ...{ gradientAccumulationSteps: 3, maxIters: 40, evalInterval: 20, evalIters: 2, logInterval: 1 },
  ...{ learningRate: 1e-2, warmupIters: 2, decayLr: false },
};
/** Rows, tokens and share of the update's gradient, for each micro-batch of an update. */
const SIZES = [[2, 6, 0.25], [5, 4, 0.5], [2, 6, 0.25]] as const;

class Head extends Module {
  readonly score: Linear;
  constructor({ device, config: { nEmbd } }: GPT, classes: number) {
    super();
    this.score = new Linear(nEmbd, classes, { device, generator: new RandomGenerator(5) });
  }
}

/** Predicts the class of each row's last token. The loss runs the model twice, with two dropout masks. */
class Classification implements Task {
  readonly ahead = false;
  readonly config;
  readonly module: Head;
  /** How many updates were drawn. State that must be saved: a resumed run continues from it. */
  #drawn = 0;

  constructor(
    model: GPT,
    readonly classes = 3,
    readonly sizes: readonly (readonly [number, number, number])[] = SIZES,
  ) {
    this.config = { name: "classification", classes };
    this.module = new Head(model, classes);
  }
  async *draw({ count, generator }: DrawOptions): AsyncGenerator<MicroBatch> {
    assertEquals(count, 3);
    await turn();
    const shift = ++this.#drawn % CONFIG.vocabSize; // without this number in the state, a resumed run would draw different tokens
    for (const [rows, length, weight] of this.sizes) {
      await turn();
      yield this.#batch(rows, length, weight, () => (generator.randint(CONFIG.vocabSize) + shift) % CONFIG.vocabSize);
    }
  }
  *evaluate(_split: "train" | "val", { count, generator }: DrawOptions): Iterable<MicroBatch> {
    for (let i = 0; i < count; i++) yield this.#batch(4, 6, 1 + i, () => generator.randint(CONFIG.vocabSize));
  }
  #batch(rows: number, length: number, weight: number, token: () => number): MicroBatch {
    const values = Int32Array.from({ length: rows * length }, token);
    const labels = Int32Array.from({ length: rows }, (_, row) => values[(row + 1) * length - 1] % this.classes);
    const range = [0, CONFIG.vocabSize - 1] as const;
    return {
      weight,
      arrays: { tokens: { values, shape: [rows, length], range }, labels: { values: labels, shape: [rows] } },
    };
  }
  loss(model: GPT, { tokens, labels }: Record<string, Tensor>): Tensor {
    const [B, T] = tokens.shape, C = model.config.nEmbd;
    const once = () => {
      const last = reshape(slice(model.hidden(tokens), { axis: 1, start: T - 1, end: T }), [B, C]);
      return crossEntropy(this.module.score.forward(last), labels);
    };
    return add(once(), once());
  }
  state() {
    return { drawn: this.#drawn };
  }
  restore({ drawn }: Readonly<Record<string, unknown>>): void {
    this.#drawn = drawn as number;
  }
}

interface Setup {
  readonly folder?: RunFolder;
  readonly seed?: number;
  readonly options?: Partial<TrainerOptions>;
  readonly task?: (model: GPT) => Task;
}
function setup(
  device: Device,
  { folder, seed = 1337, options, task = (model) => new Classification(model) }: Setup = {},
) {
  const generator = new RandomGenerator(seed), model = new GPT(CONFIG, { device, generator });
  return new Trainer(model, task(model), { ...OPTIONS, ...options, generator, folder });
}
const newRun = (path: string) => RunFolder.create(path, { flags: {}, model: { ...CONFIG }, vocabulary: {} });

async function losses(
  trainer: Trainer,
  { signal, until }: { signal?: AbortSignal; until?: (iter: number) => void } = {},
) {
  const found: number[] = [];
  for await (const event of trainer.run({ signal })) {
    if (event.kind !== "step") continue;
    found.push(event.loss);
    until?.(event.iter);
  }
  return found;
}

async function files(path: string): Promise<Record<string, Uint8Array>> {
  const { name } = await (await RunFolder.open(path)).checkpoint("last"), found: Record<string, Uint8Array> = {};
  for await (const file of Deno.readDir(`${path}/${name}`)) {
    found[file.name] = await Deno.readFile(`${path}/${name}/${file.name}`);
  }
  return found;
}

for (const name of ["reference", "cpu"]) {
  Deno.test(`task: a classifier with a head learns, stops at a signal, and resumes bit for bit (${name})`, () =>
    inFolder(async (path) => {
      const device = await openDevice(name, { threads: 1 });
      const whole = await losses(setup(device, { folder: await newRun(`${path}/a`) }));
      assert(whole[0] > 1.5 && whole.at(-1)! < 0.8, `two passes, from 2 ln 3 = 2.2 down: ${whole[0]}, ${whole.at(-1)}`);

      const controller = new AbortController(), stopped = setup(device, { folder: await newRun(`${path}/b`) });
      const until = (iter: number) => iter === 24 && controller.abort();
      const before = await losses(stopped, { signal: controller.signal, until });
      assertEquals(stopped.iter, 25);
      const resumed = setup(device, { folder: await RunFolder.open(`${path}/b`), seed: 9 });
      for (const weight of resumed.task.module!.parameters()) device.fill(weight.storage, (values) => values.fill(1));
      await resumed.resume();
      assertEquals([...before, ...await losses(resumed)], whole);

      const [a, b] = [await files(`${path}/a`), await files(`${path}/b`)];
      const parts = ["model.safetensors", "optimizer.safetensors", "state.json", "task.safetensors"];
      assertEquals(Object.keys(a).sort(), parts);
      assertEquals(b, a);
      assertEquals(JSON.parse(new TextDecoder().decode(a["state.json"])).task, { name: "classification", classes: 3 });
      device.close();
    }));
}

Deno.test("task: its memory is estimated to the byte", async () => {
  const device = await createDevice("cpu", { threads: 1 }), task = (model: GPT) => new Classification(model);
  const { bytes } = await trainingNeeds(CONFIG, { ...OPTIONS, device, task });
  assertEquals(device.memory().reserved, 0);
  await losses(setup(device, { options: { maxIters: 3, evalInterval: 2, evalIters: 1 } }));
  assertEquals(device.memory().reserved, bytes);
  const other = await trainingNeeds(CONFIG, { ...OPTIONS, device, task: (model) => new Classification(model, 3000) });
  assert(other.bytes > bytes + 4 * 4 * 2997 * CONFIG.nEmbd, "a larger head takes more, four times over");
  device.close();
});

Deno.test("task: memory does not grow after a few updates of two shapes, and all of it is freed", async () => {
  const device = await createDevice("cpu", { threads: 1 }), before = device.memory(), at: unknown[] = [];
  const trainer = setup(device);
  await losses(trainer, { until: (iter) => void (at[iter] = device.memory()) });
  assertEquals(at[39], at[21]); // after the evaluation at 20, which runs in memory of the captured programs
  trainer.dispose();
  trainer.task.module!.dispose();
  trainer.model.dispose();
  assertEquals({ ...device.memory(), reserved: 0 }, { ...before, reserved: 0 });
  device.close();
});

/** A task that returns the batches passed to it. */
class Given implements Task {
  readonly ahead = false;
  constructor(readonly batches: readonly MicroBatch[]) {}
  draw() {
    return this.batches;
  }
  evaluate(): readonly MicroBatch[] {
    return this.batches;
  }
  loss(model: GPT, { tokens, targets }: Record<string, Tensor>): Tensor {
    return model.forward(tokens, targets).loss;
  }
  state() {
    return {};
  }
  restore(): void {}
}
/** `count` random rows of tokens. */
function rows(count: number, seed: number): Int32Array {
  const generator = new RandomGenerator(seed);
  return Int32Array.from({ length: count * 4 }, () => generator.randint(CONFIG.vocabSize));
}
const batch = (values: Int32Array, weight?: number): MicroBatch => {
  const shape = [values.length / 4, 4], range = [0, CONFIG.vocabSize - 1] as const;
  return { weight, arrays: { tokens: { values, shape, range }, targets: { values, shape, range } } };
};
const EVERY = { maxIters: 0, evalInterval: 1, logInterval: 1 };

Deno.test("task: micro-batches weighted by their rows give the gradient and the evaluation of all rows at once", async () => {
  const device = await createDevice("reference"), [two, five] = [rows(2, 1), rows(5, 2)];
  const numbers = async (batches: MicroBatch[]) => {
    const model = new GPT({ ...CONFIG, dropout: 0 }, { device, generator: new RandomGenerator(3) }),
      found: number[] = [];
    for await (const event of new Trainer(model, new Given(batches), { ...OPTIONS, ...EVERY }).run()) {
      if (event.kind === "evaluation") found.push(event.trainLoss, event.valLoss);
      if (event.kind === "step") found.push(event.gradNorm);
    }
    return found;
  };
  const apart = await numbers([batch(two, 2 / 7), batch(five, 5 / 7)]);
  const whole = await numbers([batch(Int32Array.of(...two, ...five), 1)]);
  for (const [i, value] of apart.entries()) assertAlmostEquals(value, whole[i], 1e-12);
  const other = await numbers([batch(two, 1 / 2), batch(five, 1 / 2)]);
  assert(other.every((value, i) => Math.abs(value - whole[i]) > 1e-6), "other weights make other numbers");
  device.close();
});

Deno.test("task: measures are weighted means over an update's micro-batches, and `drawn` adds measures of the host", () =>
  inFolder(async (path) => {
    class Measured extends Given {
      readonly measures = ["loss/again", "rows"];
      override loss(model: GPT, { tokens, targets }: Record<string, Tensor>) {
        const loss = super.loss(model, { tokens, targets });
        const rows = model.device.tensor([tokens.shape[0]], [1]);
        return { loss, outputs: concat([reshape(loss, [1]), rows], { axis: 0 }) } as unknown as Tensor; // cast to the base class's return type
      }
      drawn() {
        return { updates: ++this.updates };
      }
      updates = 0;
    }
    const device = await createDevice("cpu", { threads: 1 });
    const task = new Measured([batch(rows(2, 1), 0.25), batch(rows(5, 2), 0.75)]);
    const trainer = setup(device, { task: () => task, folder: await newRun(path), options: { ...EVERY, maxIters: 3 } });
    let steps = 0;
    for await (const event of trainer.run()) {
      if (event.kind === "evaluation") {
        assertAlmostEquals(event.measures["val_loss/again"], event.valLoss, 1e-6);
        assertEquals(event.measures.train_rows, 0.25 * 2 + 0.75 * 5);
      }
      if (event.kind !== "step") continue;
      assertAlmostEquals(event.measures!["loss/again"], event.loss, 1e-6);
      assertEquals({ ...event.measures, "loss/again": 0 }, { "loss/again": 0, rows: 4.25, updates: ++steps });
    }
    assertEquals(steps, 4);
    const lines = (await Deno.readTextFile(`${path}/metrics.jsonl`)).trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(
      lines.filter(({ loss }) => loss).map((line) => [line.rows, line.updates]),
      [1, 2, 3, 4].map((n) => [4.25, n]),
    );
    device.close();
  }));

/** Fails in the middle of an update, after it has drawn from the generator and one pass has run. */
class Failing extends Classification {
  constructor(model: GPT, readonly fail: () => unknown) {
    super(model);
  }
  override async *draw(options: DrawOptions): AsyncGenerator<MicroBatch> {
    const before = this.state();
    let batches = 0;
    for await (const batch of super.draw(options)) {
      const error = batches++ === 1 ? this.fail() : undefined;
      if (error) {
        this.restore(before);
        throw error;
      }
      yield batch;
    }
  }
}

Deno.test("task: a failing task has the run saved as it was before the update, and the run resumes bit for bit", () =>
  inFolder(async (path) => {
    const device = await createDevice("cpu", { threads: 1 }), found: number[] = [], controller = new AbortController();
    const whole = await losses(setup(device, { folder: await newRun(`${path}/a`) }));
    const run = async (folder: RunFolder, fail: () => unknown, signal?: AbortSignal) => {
      const task = (model: GPT) => new Failing(model, fail), trainer = setup(device, { folder, task });
      if (folder.last) await trainer.resume();
      for await (const event of trainer.run({ signal })) if (event.kind === "step") found.push(event.loss);
    };
    const until = (count: number, error: () => unknown) => () => found.length === count && error();
    const failed = run(await newRun(`${path}/b`), until(7, () => new TrainingError("the distance is 51 nats")));
    const { message } = await assertRejects(() => failed, TrainingError);
    assertEquals(
      message,
      "the distance is 51 nats\nTraining has stopped at iteration 7, and checkpoint-000007 is still there",
    );
    const stop = () => (controller.abort(), controller.signal.reason); // as when Ctrl-C stops a rollout
    await run(await RunFolder.open(`${path}/b`), until(30, stop), controller.signal);
    assertEquals(found.length, 30);
    await run(await RunFolder.open(`${path}/b`), () => undefined);
    assertEquals(found, whole);
    assertEquals(await files(`${path}/b`), await files(`${path}/a`));
    device.close();
  }));

Deno.test("task: an integer out of range is refused in a replay too, and so is an update without a batch", async () => {
  const device = await createDevice("cpu", { threads: 1 }), wrong = rows(2, 2);
  wrong[3] = CONFIG.vocabSize;
  const tokens = rows(2, 1), bad = { ...batch(tokens).arrays, tokens: batch(wrong).arrays.tokens };
  class Apart extends Given {
    constructor(batches: MicroBatch[], override readonly evaluate = () => [batch(tokens)]) {
      super(batches);
    }
  }
  const refused = async (task: Task, message: string) => {
    const error = await assertRejects(() => losses(setup(device, { task: () => task })), DataError);
    assertStringIncludes(error.message, message);
  };
  await refused(
    new Apart([batch(tokens), { arrays: bad }]),
    "the data has 9 among its tokens; expected 0 to 8",
  );
  await refused(new Apart([]), "the task has given no batch for an update");
  await refused(new Apart([batch(tokens)], () => []), "the task has given no batch to evaluate train on");
  device.close();
});

Deno.test("task: a checkpoint of a different task, or of a task with different sizes, is refused", () =>
  inFolder(async (path) => {
    const device = await createDevice("cpu", { threads: 1 }), options = { maxIters: 2 };
    const text = { train: rows(30, 1), val: rows(30, 2) };
    const language = async (folder: RunFolder) => {
      return await Promise.resolve(
        new Trainer(new GPT(CONFIG, { device }), text, { ...OPTIONS, batchSize: 2, ...options, folder }),
      );
    };
    await losses(setup(device, { folder: await newRun(`${path}/a`), options }));
    await losses(await language(await newRun(`${path}/b`)));
    const refused = async (trainer: Trainer, message: string) => {
      const error = await assertRejects(() => trainer.resume(), CheckpointError);
      assertStringIncludes(error.message, message);
    };
    const a = () => RunFolder.open(`${path}/a`), b = () => RunFolder.open(`${path}/b`);
    await refused(
      await language(await a()),
      "is of another task: its name is classification, expected language modelling",
    );
    await refused(setup(device, { folder: await b() }), "its name is language modelling, expected classification");
    const four = setup(device, { folder: await a(), task: (model) => new Classification(model, 4) });
    await refused(four, "is of another task: its classes is 3, expected 4");
    device.close();
  }));

Deno.test("task: its own parameter groups train the head faster than the body", async () => {
  class Grouped extends Given {
    configureOptimizers(model: GPT, options: AdamWOptions): AdamW {
      const all = [...model.namedParameters()], slow = all.filter(([name]) => name.includes(".h."));
      const fast = all.filter(([name]) => !name.includes(".h."));
      return new AdamW([{ parameters: slow, learningRate: 0 }, { parameters: fast }], options);
    }
  }
  const device = await createDevice("cpu", { threads: 1 }), batches = [batch(rows(2, 1))];
  const trainer = setup(device, { task: () => new Grouped(batches), options: { ...EVERY, weightDecay: 0 } });
  const read = () =>
    Promise.all([...trainer.model.namedParameters()].map(async ([name, one]) => [name, await one.data()] as const));
  const before = await read();
  await losses(trainer);
  for (const [i, [name, values]] of (await read()).entries()) {
    assertEquals(values.every((value, k) => value === before[i][1][k]), name.includes(".h."), name);
  }
  device.close();
});

Deno.test("trainer: state() draws nothing, and a run resumes from a state taken before the first update", async () => {
  const device = await createDevice("cpu", { threads: 1 }), generator = new RandomGenerator(1), text = rows(30, 1);
  const model = new GPT(CONFIG, { device, generator });
  const trainer = new Trainer(model, { train: text, val: text }, { ...OPTIONS, batchSize: 2, generator });
  const before = generator.getState();
  assertEquals(trainer.state().offsets, []);
  assertEquals(generator.getState(), before);
  await losses(trainer);
  const after = generator.getState();
  assertEquals(trainer.state().offsets!.length, 2);
  assertEquals(generator.getState(), after);
  device.close();
});

/** The loss of a batch of zeros, without a captured program. */
function eager(model: GPT): Tensor {
  using scope = model.device.scope();
  const ids = model.device.tensor(new Int32Array(12), [2, 6], { dtype: "i32" });
  return scope.keep(model.forward(ids, ids).loss);
}

Deno.test("trainer: a layer replaced between two updates is used by the next update", async () => {
  const device = await createDevice("cpu", { threads: 1 }), zeros = new Int32Array(100);
  const model = new GPT({ ...CONFIG, dropout: 0 }, { device });
  const trainer = new Trainer(model, { train: zeros, val: zeros }, { ...OPTIONS, batchSize: 2, maxIters: 6 });
  const found: number[] = [], expected: number[] = [];
  for await (const event of trainer.run()) {
    if (event.kind !== "step") continue;
    found.push(event.loss);
    const { nEmbd } = CONFIG, generator = new RandomGenerator(event.iter);
    if (event.iter === 2) {
      model.transformer.h[0].mlp.c_proj = new Linear(4 * nEmbd, nEmbd, { device, generator });
      model.transformer.h[0].mlp.c_proj.freeze();
      model.changed();
    }
    if (event.iter === 4) model.eval(); // the next update switches back to training mode
    expected.push(await eager(model).item());
  }
  assertEquals(found.slice(1), expected.slice(0, -1));
  assert(model.training);
  device.close();
});

/** A CPU device whose memory is limited to `bytes`. */
async function withMemory(bytes: number): Promise<CpuDevice> {
  const { Memory } = WebAssembly;
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      if (65536 * descriptor.initial > bytes) throw new RangeError("no room");
      super(descriptor);
    }
  };
  try {
    return await CpuDevice.create({ threads: 1 });
  } finally {
    WebAssembly.Memory = Memory;
  }
}

Deno.test("trainer: a constructor that throws frees everything it allocated and does not change the model", async () => {
  const device = await withMemory(2 ** 26), text = rows(3000, 1), data = { train: text, val: text };
  const model = new GPT({ ...CONFIG, blockSize: 1024, nEmbd: 192 }, { device }), [first] = model.parameters();
  const before = device.memory(), { storage } = first;
  const unchanged = () => {
    const { tensors, bytes } = device.memory();
    assertEquals({ tensors, bytes }, { tensors: before.tensors, bytes: before.bytes });
    assert(first.storage === storage && first.grad === undefined);
  };
  assertThrows(() => new Trainer(model, data, { ...OPTIONS, beta1: 2 }), ConfigError);
  unchanged();
  const models: GPT[] = [], trainers: Trainer[] = [];
  const optimizers = () => {
    for (;;) { // until one does not fit
      models.push(new GPT(model.config, { device }));
      trainers.push(new Trainer(models.at(-1)!, data, OPTIONS));
    }
  };
  assertThrows(optimizers, DeviceError);
  assert(
    trainers.length > 0 && models.length > trainers.length,
    `${models.length} models, ${trainers.length} trainers`,
  );
  for (const one of [...trainers, ...models]) one.dispose();
  unchanged();
  // The batch does not fit, which shows at the first update, when its tensors are allocated.
  using trainer = new Trainer(model, data, { ...OPTIONS, batchSize: 8000 });
  const made = device.memory();
  await assertRejects(() => losses(trainer), DeviceError, "does not fit");
  assertEquals(device.memory().tensors, made.tensors);
  device.close();
});

Deno.test("task: if a run's checkpoint is replaced while an evaluation reads it, the evaluation reads the new one", () =>
  inFolder(async (path) => {
    const device = await createDevice("cpu", { threads: 1 }), read: number[] = [];
    await losses(setup(device, { folder: await newRun(path), options: { maxIters: 1 } }));
    const { last } = await RunFolder.open(path), run = `${path}/run.json`;
    /** Replaces the run's checkpoint after its state was read and before its tensors are. */
    class Late extends Classification {
      override restore(state: Readonly<Record<string, unknown>>): void {
        super.restore(state);
        if (read.push(state.iter as number) > 1) return;
        Deno.renameSync(`${path}/${last}`, `${path}/checkpoint-000099`);
        Deno.writeTextFileSync(run, Deno.readTextFileSync(run).replaceAll(last!, "checkpoint-000099"));
      }
    }
    const options = { evalOnly: true }, folder = await RunFolder.open(path);
    const trainer = setup(device, { folder, options, seed: 1, task: (model) => new Late(model) });
    await trainer.resume();
    assertEquals([trainer.iter, read], [2, [2, 2]]);
    device.close();
  }));
