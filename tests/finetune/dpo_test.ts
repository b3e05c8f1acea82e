/** DPO: losses computed by hand, both kinds of reference, resuming, and errors. */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { trainedAdapter } from "../../src/finetune/adapter.ts";
import { TokenRows } from "../../src/data/token_rows.ts";
import type { Device } from "../../src/engine/device.ts";
import { ConfigError, DataError } from "../../src/errors.ts";
import { DirectPreference, type PreferenceOptions } from "../../src/finetune/dpo.ts";
import { referenceSums } from "../../src/finetune/pairs.ts";
import { applyLora } from "../../src/finetune/lora.ts";
import { ReferencePolicy } from "../../src/finetune/policy.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { checkTraining, trainingNeeds } from "../../src/train/memory.ts";
import type { Measures } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { devices, inFolder, openDevice } from "../testing.ts";

const CONFIG: GPTConfig = { blockSize: 40, vocabSize: 9, nLayer: 2, nHead: 2, nEmbd: 16, dropout: 0.2, bias: true };
const newModel = (device: Device) => new GPT(CONFIG, { device, seed: 3 });

/** Pairs of texts of different lengths, two rows for each pair. */
function pairs(count: number, answer = (random: RandomGenerator) => 1 + random.randint(12)): TokenRows {
  const rows = new TokenRows(), random = new RandomGenerator(8);
  for (let pair = 0; pair < count; pair++) {
    const text = (length: number) => Array.from({ length }, () => random.randint(CONFIG.vocabSize));
    const prompt = text(1 + random.randint(20));
    for (let which = 0; which < 2; which++) {
      const ids = Int32Array.from([...prompt, ...text(answer(random))]);
      rows.push({ ids, learned: new Uint8Array(ids.length).fill(1, prompt.length) });
    }
  }
  return rows;
}
const RUN = { gradientAccumulationSteps: 2, evalInterval: 4, evalIters: 2, logInterval: 1, learningRate: 3e-3 };
const RATES = { decayLr: false, warmupIters: 0, finalEvaluation: true, maxIters: 8 };

/** Losses and measures of all updates of a run. */
async function losses(trainer: Trainer): Promise<{ losses: number[]; measures: Measures[] }> {
  const losses: number[] = [], measures: Measures[] = [];
  for await (const event of trainer.run()) {
    if (event.kind !== "step") continue;
    losses.push(event.loss);
    measures.push(event.measures!);
  }
  return { losses, measures };
}

for (const { name, device } of await devices()) {
  Deno.test(`the losses of a pair with Δ = 0.5 equal the values computed by hand (${name})`, async () => {
    const model = newModel(device), rows = pairs(3, () => 1), same = new ReferencePolicy(model, model);
    const own = await referenceSums(same, rows, { batchSize: 2, maxLength: 40 });
    // r = log π − log π_ref is 0.5 for the chosen answer and 0 for the rejected answer.
    const shifted = own.map((sum, row) => row % 2 === 0 ? sum - 0.5 : sum);
    const of = async (options: Partial<PreferenceOptions>) => {
      const all = { batchSize: 2, maxLength: 40, reference: { train: shifted, val: shifted }, ...options };
      using trainer = new Trainer(model, new DirectPreference(model, { train: rows, val: rows }, all), {
        ...RUN,
        evalOnly: true,
      });
      for await (const event of trainer.run()) {
        if (event.kind === "evaluation") return { loss: event.valLoss, measures: event.measures };
      }
      throw new Error("no evaluation");
    };
    const near = async (options: Partial<PreferenceOptions>, expected: number) =>
      assertAlmostEquals((await of(options)).loss, expected, 3e-6, JSON.stringify(options));
    await near({}, 0.6684596); // −log σ(0.05)
    await near({ labelSmoothing: 0.1 }, 0.9 * 0.6684596 + 0.1 * 0.7184596); // −log σ(−0.05) = 0.7184596
    await near({ loss: "robust", labelSmoothing: 0.1 }, (0.9 * 0.6684596 - 0.1 * 0.7184596) / 0.8);
    await near({ loss: "hinge" }, 0.95);
    await near({ loss: "ipo", beta: 0.5 }, 0.25); // (0.5 − 1)², because the answers have one token each
    const { measures } = await of({});
    assertAlmostEquals(measures["val_rewards/margins"], 0.05, 1e-6);
    assertAlmostEquals(measures["val_rewards/chosen"], 0.05, 1e-6);
    assertAlmostEquals(measures["val_rewards/rejected"], 0, 1e-6);
    const free = (await of({ reference: undefined })).measures,
      mean = (which: number) => own.filter((_, row) => row % 2 === which).reduce((sum, one) => sum + one / 3, 0);
    assertAlmostEquals(free["val_rewards/chosen"], 0.1 * mean(0), 1e-5);
    assertAlmostEquals(free["val_logps/rejected"], mean(1), 1e-5);
    model.dispose();
  });

  Deno.test(`the distance of a policy from itself is exactly 0: the first loss is ln 2 (${name})`, async () => {
    const model = newModel(device), rows = pairs(5);
    applyLora(model, { rank: 2, seed: 4 });
    const options = { batchSize: 2, maxLength: 40, reference: new ReferencePolicy(model, model) };
    using trainer = new Trainer(model, new DirectPreference(model, { train: rows, val: rows }, options), {
      ...{ ...RUN, ...RATES, maxIters: 1 },
    });
    const { losses: [loss], measures: [measures] } = await losses(trainer);
    assertAlmostEquals(loss, Math.LN2, 1e-7);
    for (const name of ["chosen", "rejected", "margins", "accuracies"]) assertEquals(measures[`rewards/${name}`], 0);
    model.dispose();
  });
}

Deno.test("a run has the same losses if its reference is the adapter's base, an equal model, or stored log-probabilities", async () => {
  const device = await openDevice("cpu", { threads: 1 }), rows = pairs(12), found: { losses: number[] }[] = [];
  for (const how of ["off", "beside", "stored"]) {
    const model = newModel(device), beside = newModel(device).freeze();
    const lora = applyLora(model, { rank: 4, seed: 4 }),
      policy = new ReferencePolicy(model, how === "off" ? lora : beside);
    const sizes = { batchSize: 3, maxLength: 40 };
    const sums = how === "stored" ? await referenceSums(policy, rows, { ...sizes, batchSize: 5 }) : undefined;
    const reference = sums ? { train: sums, val: sums } : policy;
    const task = new DirectPreference(model, { train: rows, val: rows }, { ...sizes, reference });
    using trainer = new Trainer(model, task, { ...RUN, ...RATES });
    found.push(await losses(trainer));
    assert(lora.enabled);
    model.dispose();
    beside.dispose();
  }
  assertEquals(found[1], found[0]);
  assertEquals(found[2], found[0]);
  const [{ losses: [first, ...more] }] = found;
  assert(more.at(-1)! < first);
  device.close();
});

Deno.test("a run resumed in the middle of an epoch has the bits of an uninterrupted run", () =>
  inFolder(async (folder) => {
    const device = await openDevice("cpu", { threads: 1 }), rows = pairs(11);
    const run = async (path: string, stops: readonly number[]) => {
      for (const [i, maxIters] of stops.entries()) {
        const model = newModel(device), lora = applyLora(model, { rank: 2, seed: 4 });
        const reference = new ReferencePolicy(model, lora), sizes = { batchSize: 2, maxLength: 40, beta: 0.5 };
        const task = new DirectPreference(model, { train: rows, val: rows }, { ...sizes, reference });
        const description = { flags: {}, model: { ...model.config }, vocabulary: {} };
        using out = i === 0 ? await RunFolder.create(path, description) : await RunFolder.open(path);
        const adapter = trainedAdapter(lora, { base: "base", taskType: "CAUSAL_LM" });
        using trainer = new Trainer(model, task, { ...RUN, ...RATES, maxIters, folder: out, adapter });
        if (i > 0) await trainer.resume();
        await losses(trainer);
        model.dispose();
      }
      return await Promise.all(
        ["adapter_model", "optimizer"].map((file) =>
          Deno.readFile(`${path}/checkpoint-${`${stops.at(-1)}`.padStart(6, "0")}/${file}.safetensors`)
        ),
      );
    };
    assertEquals(await run(`${folder}/b`, [3, 5, 8]), await run(`${folder}/a`, [8]));
    device.close();
  }));

Deno.test("the memory estimate is what a run takes or a little more, with an adapter and with a separate reference model", async () => {
  const rows = pairs(16);
  for (const how of ["off", "beside"] as const) {
    const device = await openDevice("cpu", { threads: 1 }),
      beside = newModel(device).freeze(),
      lasting = device.memory().reserved;
    const model = newModel(device), lora = how === "off" && applyLora(model, { rank: 4 });
    const sizes = { batchSize: 4, maxLength: 40 }, reference = new ReferencePolicy(model, lora || beside);
    const task = new DirectPreference(model, { train: rows, val: rows }, { ...sizes, reference });
    const adapt = lora ? (other: GPT) => void applyLora(other, lora.options) : undefined;
    const options = {
      ...RUN,
      ...RATES,
      evalIters: 4,
      device,
      model,
      adapt,
      task: (other: GPT) => task.rehearsal(other),
    };
    await checkTraining(model.config, options);
    const { bytes } = await trainingNeeds(model.config, options);
    using trainer = new Trainer(model, task, { ...RUN, ...RATES, evalIters: 4 });
    await losses(trainer);
    const taken = device.memory().reserved - lasting;
    assert(taken <= bytes && bytes < 1.3 * taken, `${how}: ${bytes} bytes, and ${taken} are taken`);
    device.close();
  }
});

Deno.test("invalid rows and options are refused", async () => {
  const device = await openDevice("cpu", { threads: 1 }), model = newModel(device), good = pairs(2);
  const make = (rows: TokenRows, options: Partial<PreferenceOptions> = {}) => () =>
    new DirectPreference(model, { train: good, val: rows }, { batchSize: 2, maxLength: 40, ...options });
  assertThrows(make(new TokenRows()), DataError, "Preferences: val has 0 rows; expected two for each pair");
  const odd = pairs(1), unlearned = pairs(1);
  odd.push(good.row(0));
  assertThrows(make(odd), DataError, "val has 3 rows");
  for (let i = 0; i < 2; i++) unlearned.push({ ids: Int32Array.of(1, 2), learned: Uint8Array.of(1, 0) });
  assertThrows(make(unlearned), DataError, "row 2 of val has no token that is learned");
  assertThrows(make(good, { maxLength: 3 }), DataError, "tokens, expected at most 3");
  assertThrows(make(good, { beta: 0 }), ConfigError, "beta is 0; expected a number above 0");
  assertThrows(
    make(good, { labelSmoothing: 0.5 }),
    ConfigError,
    "labelSmoothing is 0.5; expected a number from 0 to below 0.5",
  );
  assertThrows(
    make(good, { loss: "ipo", labelSmoothing: 0.1 }),
    ConfigError,
    "the loss ipo has no label smoothing; use sigmoid or robust",
  );
  assertThrows(
    make(good, { loss: "kto" as "ipo" }),
    ConfigError,
    "loss is kto; expected one of sigmoid, hinge, ipo, robust",
  );
  device.close();
});
