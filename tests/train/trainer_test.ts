import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { Breather } from "../../src/loop/breather.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import type { Device } from "../../src/engine/device.ts";
import { CheckpointError, ConfigError, TrainingError } from "../../src/errors.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { learningRate } from "../../src/optim/schedule.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { Trainer } from "../../src/train/trainer.ts";
import type { TrainEvent } from "../../src/train/events.ts";
import type { TrainerOptions } from "../../src/train/options.ts";
import { openDevice } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 6, vocabSize: 7, nLayer: 2, nHead: 2, nEmbd: 8, dropout: 0.2, bias: true };
const OPTIONS: Partial<TrainerOptions> = {
  batchSize: 3,
  gradientAccumulationSteps: 2,
  maxIters: 60,
  evalInterval: 30,
  evalIters: 2,
  logInterval: 10,
  learningRate: 1e-2,
  warmupIters: 5,
  lrDecayIters: 60,
  minLr: 1e-3,
};
const tokens = (count: number, seed: number) => {
  const generator = new RandomGenerator(seed);
  return Int32Array.from({ length: count }, () => generator.randint(CONFIG.vocabSize));
};
const DATA = { train: tokens(300, 1), val: tokens(60, 2) };

interface Setup {
  readonly folder?: RunFolder;
  readonly data?: typeof DATA;
  readonly config?: GPTConfig;
  readonly seed?: number;
}
/** Creates a model and its trainer, as the command line does. */
function setup(
  device: Device,
  options: Partial<TrainerOptions> = {},
  { folder, data, config, seed = 1337 }: Setup = {},
) {
  const generator = new RandomGenerator(seed), model = new GPT(config ?? CONFIG, { device, generator });
  return new Trainer(model, data ?? DATA, { ...OPTIONS, ...options, generator, folder });
}
const newRun = (path: string, model = CONFIG) =>
  RunFolder.create(path, { flags: {}, model: { ...model }, vocabulary: {} });

async function collect(run: AsyncIterable<TrainEvent>): Promise<TrainEvent[]> {
  return await Array.fromAsync(run);
}
const ofKind = <K extends TrainEvent["kind"]>(events: TrainEvent[], kind: K) =>
  events.filter((event): event is Extract<TrainEvent, { kind: K }> => event.kind === kind);

/** Runs a test with a device and a folder, and removes both afterwards. */
async function withDevice(name: string, body: (device: Device, path: string) => Promise<void>): Promise<void> {
  const device = await openDevice(name, { threads: 1 }), path = await Deno.makeTempDir();
  try {
    await body(device, path);
  } finally {
    device.close();
    await Deno.remove(path, { recursive: true });
  }
}

async function hash(path: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(path));
  return new Uint8Array(digest).toHex();
}
/** Hashes of the last checkpoint's files, and the metrics without times. */
async function outcome(path: string): Promise<unknown> {
  const { name, model, optimizer } = await (await RunFolder.open(path)).checkpoint("last");
  const lines = (await Deno.readTextFile(`${path}/metrics.jsonl`)).trimEnd().split("\n").map((line) =>
    JSON.parse(line)
  );
  return {
    name,
    files: await Promise.all([model, optimizer, `${path}/${name}/state.json`].map(hash)),
    metrics: lines.map(({ ms: _, tokens_per_second: __, ...rest }) => rest),
  };
}

Deno.test("schedule: warm-up, cosine, floor", () => {
  const options = { learningRate: 1, warmupIters: 4, lrDecayIters: 12, minLr: 0.1, decayLr: true };
  assertEquals([0, 1, 2, 3].map((iter) => learningRate(iter, options)), [0.2, 0.4, 0.6, 0.8]);
  assertEquals(learningRate(4, options), 1);
  assertEquals(learningRate(6, options), 0.1 + 0.5 * (1 + Math.SQRT1_2) * 0.9); // a quarter of the way: cos π/4
  assertEquals(learningRate(8, options), 0.1 + 0.5 * (1 + Math.cos(Math.PI / 2)) * 0.9);
  assertEquals([12, 13, 1e9].map((iter) => learningRate(iter, options)), [0.1, 0.1, 0.1]);
  assertEquals(learningRate(4, { ...options, lrDecayIters: 4 }), 0.1);
  const linear = { ...options, lrSchedulerType: "linear", minLr: 0 } as const; // as in transformers, with 4 warm-up steps of 12
  assertEquals([0, 1, 3, 4, 6, 11, 12, 13].map((iter) => learningRate(iter, linear)), [
    0,
    0.25,
    0.75,
    1,
    0.75,
    0.125,
    0,
    0,
  ]);
  assertEquals([0, 99].map((iter) => learningRate(iter, { ...options, decayLr: false })), [1, 1]);
});

Deno.test("trainer: evaluates, updates, logs and saves at the same iterations as train.py", () =>
  withDevice("cpu", async (device, path) => {
    const folder = await newRun(path), trainer = setup(device, { evalInterval: 20, maxIters: 40 }, { folder });
    const events = await collect(trainer.run());
    const what = events.filter(({ kind }) => kind !== "evaluating").map(({ kind, iter }) => `${kind} ${iter}`);
    assertEquals(what, [
      ...["evaluation 0", "step 0", "step 10"], // iteration 0 saves nothing
      ...["evaluation 20", "checkpoint 20", "step 20", "step 30"],
      ...["evaluation 40", "checkpoint 40", "step 40"],
    ]);
    assertEquals(trainer.iter, 41);
    assertEquals(trainer.optimizer.t, 41);
    assertEquals(ofKind(events, "evaluating").slice(0, 4).map(({ done, total }) => [done, total]), [
      ...[[1, 4], [2, 4], [3, 4], [4, 4]],
    ]);
    const lines = (await Deno.readTextFile(folder.metricsPath)).trimEnd().split("\n").map((line) => JSON.parse(line));
    const steps = ofKind(events, "step"), evaluations = ofKind(events, "evaluation");
    assertEquals(Object.keys(lines[1]), ["iter", "loss", "lr", "grad_norm", "ms", "tokens_per_second"]);
    assertEquals(lines.filter((line) => "loss" in line).map(({ loss }) => loss), steps.map(({ loss }) => loss));
    assertEquals(
      lines.filter((line) => "val_loss" in line),
      evaluations.map(({ iter, trainLoss, valLoss }) => ({ iter, train_loss: trainLoss, val_loss: valLoss })),
    );
    assertEquals(steps.map(({ lr }) => lr), [0, 10, 20, 30, 40].map((iter) => learningRate(iter, trainer.options)));
    assert(Math.abs(steps[0].loss - Math.log(CONFIG.vocabSize)) < 0.2, `the first loss is ${steps[0].loss}`);
  }));

for (const name of ["reference", "cpu"]) {
  Deno.test(`trainer: 60 iterations equal 30, a sudden end, and a resume to 60, bit for bit (${name})`, () =>
    withDevice(name, async (device, path) => {
      await collect(setup(device, {}, { folder: await newRun(`${path}/a`) }).run());

      const killed = setup(device, {}, { folder: await newRun(`${path}/b`) });
      for await (const { kind, iter } of killed.run()) if (kind === "step" && iter === 50) break;
      const resumed = setup(device, {}, { folder: await RunFolder.open(`${path}/b`), seed: 99 });
      await resumed.resume();
      assertEquals(resumed.iter, 30);
      const events = await collect(resumed.run());
      assertEquals(ofKind(events, "evaluation").map(({ iter }) => iter), [60]); // the evaluation of iteration 30 is not repeated

      assertEquals(await outcome(`${path}/b`), await outcome(`${path}/a`));
    }));
}

Deno.test("trainer: a run interrupted between, within or after evaluations resumes bit for bit", () =>
  withDevice("cpu", async (device, path) => {
    await collect(setup(device, {}, { folder: await newRun(`${path}/a`) }).run());

    (await newRun(`${path}/b`))[Symbol.dispose]();
    for (const [kind, iter, saved] of [["step", 10, 11], ["evaluating", 30, 30], ["evaluation", 60, 60], ["", 0, 60]]) {
      const folder = await RunFolder.open(`${path}/b`), controller = new AbortController();
      const trainer = setup(device, {}, { folder });
      if (folder.last) await trainer.resume();
      for await (const event of trainer.run(controller)) {
        if (event.kind === kind && event.iter === iter) controller.abort();
      }
      assertEquals(folder.last, `checkpoint-0000${saved}`);
    }
    assertEquals(await outcome(`${path}/b`), await outcome(`${path}/a`));
  }));

Deno.test("trainer: a run that ends between two evaluations saves its last state", () =>
  withDevice("cpu", async (device, path) => {
    const folder = await newRun(`${path}/a`), options = { maxIters: 7, logInterval: 1 };
    const events = await collect(setup(device, options, { folder }).run());
    assertEquals(ofKind(events, "checkpoint"), [{
      kind: "checkpoint",
      iter: 8,
      name: "checkpoint-000008",
      best: false,
    }]);
    const resumed = setup(device, options, { folder: await RunFolder.open(`${path}/a`) });
    await resumed.resume();
    assertEquals(await collect(resumed.run()), []);

    // A run that stops one update before its end, and resumes, ends with the same state.
    const controller = new AbortController(), stopped = setup(device, options, { folder: await newRun(`${path}/b`) });
    for await (const { kind, iter } of stopped.run(controller)) if (kind === "step" && iter === 6) controller.abort();
    const last = setup(device, options, { folder: await RunFolder.open(`${path}/b`) });
    await last.resume();
    assertEquals(last.iter, 7);
    await collect(last.run());
    assertEquals(await outcome(`${path}/b`), await outcome(`${path}/a`));
  }));

Deno.test("trainer: saves nothing before the first update", () =>
  withDevice("cpu", async (device, path) => {
    const folder = await newRun(path);
    const events = await collect(setup(device, {}, { folder }).run({ signal: AbortSignal.abort() }));
    assertEquals(ofKind(events, "checkpoint"), []);
    assertEquals(folder.last, undefined);
  }));

Deno.test("trainer: a later, worse checkpoint does not replace the best one", () =>
  withDevice("cpu", async (device, path) => {
    // The text consists of zeros, so the model learns to give other tokens ever lower probabilities.
    const data = { train: new Int32Array(100), val: Int32Array.from({ length: 60 }, (_, i) => i % 4 ? 0 : 1 + i % 3) };
    for (const alwaysSaveCheckpoint of [true, false]) {
      const out = `${path}/${alwaysSaveCheckpoint}`, folder = await newRun(out);
      const options = { maxIters: 60, evalInterval: 2, alwaysSaveCheckpoint, warmupIters: 0 };
      const events = await collect(setup(device, options, { folder, data }).run());
      const losses = ofKind(events, "evaluation");
      const best = losses.reduce((best, one) => one.valLoss < best.valLoss ? one : best);
      assert(best.iter > 0 && best.iter < 60, `the least validation loss is at ${best.iter}`);
      assertEquals(folder.best, `checkpoint-${String(best.iter).padStart(6, "0")}`);
      assertEquals(folder.last, alwaysSaveCheckpoint ? "checkpoint-000060" : "checkpoint-000061");
      const saved = ofKind(events, "checkpoint").map(({ iter, best }) => [iter, best]);
      const expected = losses.filter(({ iter, best }) => iter > 0 && (best || alwaysSaveCheckpoint));
      assertEquals(saved.slice(0, expected.length), expected.map(({ iter, best }) => [iter, best]));

      const resumed = setup(device, { ...options, maxIters: 70 }, { folder: await RunFolder.open(out), data });
      await resumed.resume();
      assert(ofKind(await collect(resumed.run()), "evaluation").every((event) => event.iter > 60 && !event.best));
    }
  }));

Deno.test("trainer: with different data the best checkpoint is determined again, and the first data's does not count", () =>
  withDevice("cpu", async (device, path) => {
    const options = { maxIters: 30, evalInterval: 10, alwaysSaveCheckpoint: false };
    const zeros = { train: new Int32Array(300), val: new Int32Array(60) }; // easily learned, so its loss is lower than that of other texts
    await collect(setup(device, options, { folder: await newRun(path), data: zeros }).run());
    const data = JSON.parse(await Deno.readTextFile(`${path}/run.json`)).data;
    assertEquals([data.train.length, data.val.length], [300, 60]);

    const again = setup(device, options, { folder: await RunFolder.open(path), data: zeros });
    assertEquals(await again.resume(), { otherData: false });
    again.dispose();

    const folder = await RunFolder.open(path), { best } = folder;
    const other = setup(device, { ...options, maxIters: 45 }, { folder });
    assertEquals([await other.resume(), folder.best], [{ otherData: true }, undefined]);
    const events = await collect(other.run());
    // Evaluated again at once, because the evaluation of iteration 30 was on the first data.
    assertEquals(ofKind(events, "checkpoint").filter(({ best }) => best).map(({ iter }) => iter), [30, 40]);
    assertEquals([folder.best, best], ["checkpoint-000040", "checkpoint-000030"]);

    // Interrupted before an evaluation: only the last checkpoint is from the new data.
    const third = await RunFolder.open(path),
      stopped = setup(device, { ...options, maxIters: 47 }, { folder: third, data: zeros });
    await stopped.resume();
    await collect(stopped.run());
    assertEquals([third.last, third.best, (await third.checkpoint("best")).name], [
      "checkpoint-000048",
      undefined,
      third.last,
    ]);
    assertEquals(JSON.parse(await Deno.readTextFile(`${path}/run.json`)).data, data);
  }));

Deno.test("trainer: a run computes the checksum of its data once, and so does a resumed run", () =>
  withDevice("cpu", async (device, path) => {
    await collect(setup(device, { maxIters: 10 }, { folder: await newRun(path) }).run());
    const resumed = setup(device, { maxIters: 12 }, { folder: await RunFolder.open(path) }), { task } = resumed;
    const identity = task.identity!.bind(task);
    let computed = 0;
    task.identity = () => {
      computed++;
      return identity();
    };
    assertEquals(await resumed.resume(), { otherData: false });
    await collect(resumed.run());
    assertEquals(computed, 1);
  }));

Deno.test("trainer: a run folder without a description of its data can be resumed", () =>
  withDevice("cpu", async (device, path) => {
    await collect(setup(device, { maxIters: 30 }, { folder: await newRun(path) }).run());
    const { data, ...older } = JSON.parse(await Deno.readTextFile(`${path}/run.json`)); // as version 0.1.0 wrote it
    assert(data);
    await Deno.writeTextFile(`${path}/run.json`, JSON.stringify(older));
    const folder = await RunFolder.open(path), resumed = setup(device, {}, { folder });
    assertEquals([await resumed.resume(), folder.best], [{ otherData: false }, older.best]);
    await collect(resumed.run());
    assertEquals(JSON.parse(await Deno.readTextFile(`${path}/run.json`)).data, data);
  }));

Deno.test("trainer: evalOnly evaluates once and changes nothing, at the start and after a resume", () =>
  withDevice("cpu", async (device, path) => {
    const fresh = await collect(setup(device, { evalOnly: true }).run());
    assertEquals(ofKind(fresh, "evaluation").map(({ iter }) => iter), [0]);
    assertEquals(ofKind(fresh, "step"), []);

    await collect(setup(device, { maxIters: 12 }, { folder: await newRun(path) }).run());
    const before = await outcome(path);
    const resumed = setup(device, { evalOnly: true }, { folder: await RunFolder.open(path) });
    await resumed.resume();
    const events = await collect(resumed.run());
    assertEquals(events.map(({ kind }) => kind), [...Array(4).fill("evaluating"), "evaluation"]);
    assertEquals(ofKind(events, "evaluation").map(({ iter }) => iter), [13]);
    assertEquals(await outcome(path), before);
  }));

Deno.test("trainer: a loss that is not finite stops the run and does not replace the last checkpoint", () =>
  withDevice("cpu", async (device, path) => {
    const folder = await newRun(path), trainer = setup(device, { logInterval: 100 }, { folder });
    const running = async () => {
      for await (const { kind } of trainer.run()) {
        if (kind !== "checkpoint") continue;
        const [weight] = trainer.model.parameters();
        device.write(weight.storage, new Float32Array(weight.size).fill(NaN));
      }
    };
    const error = await assertRejects(running, TrainingError) as Error;
    assertMatch(
      error.message,
      /^The loss is NaN at iteration 30: training has stopped, and checkpoint-000030 is still there\n/,
    );
    assertEquals(error.message.split("\n").length, 2);
    const weights = new Uint8Array((await Deno.readFile(`${path}/checkpoint-000030/model.safetensors`)).buffer);
    const resumed = setup(device, {}, { folder: await RunFolder.open(path) });
    await resumed.resume();
    assert(weights.length > 0 && (await resumed.model.parameters().next().value!.data()).every(Number.isFinite));
  }));

Deno.test("trainer: an evaluation that throws leaves dropout on in every part where it was on", () =>
  withDevice("cpu", async (device) => {
    const val = tokens(60, 2).fill(CONFIG.vocabSize), trainer = setup(device, {}, { data: { ...DATA, val } });
    await assertRejects(() => collect(trainer.run()), Error, `id ${CONFIG.vocabSize} is not one of its`);
    assert([...trainer.model.modules()].every(({ training }) => training));
  }));

Deno.test("trainer: resuming from a checkpoint that is missing, damaged or of another shape fails with a message", () =>
  withDevice("cpu", async (device, path) => {
    const refused = async (message: RegExp, options: Setup = {}) => {
      const trainer = setup(device, {}, { folder: await RunFolder.open(path), ...options });
      const error = await assertRejects(() => trainer.resume(), CheckpointError) as Error;
      assertMatch(error.message, message);
      assert(error.message.split("\n").length <= 2);
    };
    const folder = await newRun(path);
    await refused(/ is in use by process \d+ since /);
    folder[Symbol.dispose]();
    await refused(/has no checkpoint yet/);
    await collect(setup(device, { maxIters: 3 }, { folder }).run());
    await refused(/is of another model: its nLayer is 2, expected 1$/, { config: { ...CONFIG, nLayer: 1 } });
    await refused(/is of another model: its vocabSize is 7, expected 9$/, { config: { ...CONFIG, vocabSize: 9 } });

    const saved = `${path}/checkpoint-000004`, state = await Deno.readTextFile(`${saved}/state.json`);
    const changed = (changes: object) =>
      Deno.writeTextFile(`${saved}/state.json`, JSON.stringify({ ...JSON.parse(state), ...changes }));
    await changed({ iter: -1 });
    await refused(/state.json is damaged: iter/);
    await changed({ offsets: "none" });
    await refused(/state.json is damaged: offsets/);
    await changed({ generator: { words: [1], index: 0, cachedNormal: null } });
    await refused(/Not the state of a random generator/);
    await changed({});

    // The folder's description names this model, but its tensors are another model's.
    const other = { ...CONFIG, nEmbd: 16 };
    await Deno.rename(`${path}/run.json`, `${path}/kept.json`);
    const text = await Deno.readTextFile(`${path}/kept.json`);
    await Deno.writeTextFile(`${path}/run.json`, text.replace('"nEmbd": 8', '"nEmbd": 16'));
    await refused(/belongs to another model: .* is \[7,8\], expected \[7,16\]/, { config: other });
    await Deno.rename(`${path}/kept.json`, `${path}/run.json`);

    const { size } = await Deno.stat(`${saved}/model.safetensors`);
    await Deno.truncate(`${saved}/model.safetensors`, size - 1);
    await refused(/model.safetensors is truncated/);
    await Deno.remove(`${saved}/model.safetensors`);
    await refused(/Cannot read .*model.safetensors: no such file/);
  }));

Deno.test("trainer: memory does not grow after a few steps", () =>
  withDevice("cpu", async (device) => {
    const before = device.memory();
    const trainer = setup(device, { evalInterval: 5, logInterval: 1 });
    const at = new Map<number, unknown>();
    for await (const { kind, iter } of trainer.run()) if (kind === "step") at.set(iter, device.memory());
    assertEquals(at.get(58), at.get(8));
    trainer.dispose();
    trainer.model.dispose();
    assertEquals({ ...device.memory(), reserved: 0 }, { ...before, reserved: 0 });
  }));

Deno.test("trainer: timers and signals run during a run", () =>
  withDevice("cpu", async (device) => {
    const controller = new AbortController(), timer = setTimeout(() => controller.abort(), 100);
    const trainer = setup(device, { maxIters: 1e9, evalInterval: 1e9, logInterval: 1e9 });
    // If timers did not run, `patience` would end the training after 20 seconds.
    const begin = performance.now();
    const patience = {
      get aborted() {
        return controller.signal.aborted || performance.now() - begin > 20_000;
      },
    };
    await collect(trainer.run({ signal: patience as AbortSignal }));
    clearTimeout(timer);
    assert(controller.signal.aborted);
  }));

Deno.test("breather: yields to timers after 50 ms, the first time after 100 ms, and not sooner", async () => {
  const { now } = performance;
  let time = 0;
  performance.now = () => time;
  try {
    const breather = new Breather();
    for (const wait of [100, 50]) {
      let ran = false;
      const timer = setTimeout(() => ran = true, 0);
      time += wait - 1;
      for (let i = 0; i < 100; i++) await breather.breathe();
      assertEquals(ran, false);
      time += 1;
      for (const begin = Date.now(); Date.now() - begin < 10;); // until the timer is due
      await breather.breathe();
      clearTimeout(timer);
      assertEquals(ran, true);
    }
  } finally {
    performance.now = now;
  }
});

Deno.test("trainer: options out of range are refused by name", () =>
  withDevice("cpu", (device) => {
    for (const name of ["batchSize", "gradientAccumulationSteps", "evalInterval", "evalIters", "logInterval"]) {
      for (const value of [0, -1, 1.5, NaN]) {
        assertThrows(
          () => setup(device, { [name]: value }),
          ConfigError,
          `${name} is ${value}; expected a whole number`,
        );
      }
    }
    assertThrows(() => setup(device, { maxIters: -1 }), ConfigError, "maxIters is -1");
    assertThrows(() => setup(device, { learningRate: NaN }), ConfigError, "learningRate is NaN");
    assertThrows(() => setup(device, { beta2: 1 }), ConfigError, "beta2 is 1");
    const misspelt = (given: Record<string, number>, message: string) =>
      assertThrows(() => setup(device, given), ConfigError, message);
    misspelt({ batch_size: 8 }, "batch_size is not an option of Trainer; did you mean batchSize?");
    misspelt({ maxIter: 8 }, "maxIter is not an option of Trainer; did you mean maxIters?");
    misspelt({ threads: 8 }, "threads is not an option of Trainer: learningRate, ");
    return Promise.resolve();
  }));
