/**
 * DPO against plain PyTorch (alignment.py): losses, measures and gradients of an update, and four updates by the
 * trainer.
 */
import { TokenRows } from "../../src/data/token_rows.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { DirectPreference, type PreferenceOptions } from "../../src/finetune/dpo.ts";
import { referenceSums } from "../../src/finetune/pairs.ts";
import { ReferencePolicy } from "../../src/finetune/policy.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { namedMeasures } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { type Kind, limitOf } from "./tolerances.ts";
import { assertUpdates } from "./updates.ts";
import { loadWeights } from "./weights.ts";

interface DpoCase {
  readonly name: string;
  readonly config: GPTConfig;
  readonly rows: readonly Readonly<Record<"prompt" | "chosen" | "rejected", readonly number[]>>[];
  readonly updates: readonly (readonly (readonly number[])[])[];
  readonly lossType: PreferenceOptions["loss"];
  readonly beta: number;
  readonly labelSmoothing?: number;
  readonly referenceFree?: boolean;
  readonly metrics?: readonly string[];
  readonly learningRate?: number;
  readonly weightDecay: number;
  readonly betas: readonly [number, number];
  readonly gradClip: number;
}

/** The kinds of reference: the fixture's sums, a separate model, or sums computed with that model. */
type Reference = "stored" | "policy" | "computed";

async function check({ device }: TestDevice, fixture: Fixture<DpoCase>, number: number, how: Reference) {
  const test = fixture.cases[number], { name, config, updates, lossType: loss, beta, labelSmoothing } = test;
  const expected = (key: string) => fixture.get(`${number}.${key}`).values;
  const [model, other] = ["w", "r"].map((letter) => {
    const model = new GPT(config, { device });
    loadWeights(model, fixture, letter);
    return model;
  });
  const rows = new TokenRows(), policy = new ReferencePolicy(model, other.freeze());
  for (const { prompt, chosen, rejected } of test.rows) {
    for (const answer of [chosen, rejected]) {
      const ids = Int32Array.of(...prompt, ...answer);
      rows.push({ ids, learned: new Uint8Array(ids.length).fill(1, prompt.length) });
    }
  }
  const sizes = { batchSize: updates[0][0].length, maxLength: config.blockSize! };
  let reference: PreferenceOptions["reference"] = how === "policy" ? policy : undefined;
  if (how !== "policy" && !test.referenceFree) {
    const sums = new Float32Array(rows.length), [chosen, rejected] = [expected("ref.chosen"), expected("ref.rejected")];
    for (let pair = 0; pair < test.rows.length; pair++) sums.set([chosen[pair], rejected[pair]], 2 * pair);
    const computed = await referenceSums(policy, rows, { ...sizes, batchSize: 3 });
    // A sum of up to six differences of logits, each with a few rounding errors, stored in f32.
    assertClose(computed, sums, { atol: 3e-6, rtol: 1e-6 }, `${name}: the reference's sums`);
    reference = { train: how === "stored" ? sums : computed, val: sums };
  }
  const options = { ...sizes, loss, beta, labelSmoothing, reference, shuffle: false };
  const newTask = () => new DirectPreference(model, { train: rows, val: rows }, options);
  // If the reference is computed, its sums differ from the fixture's sums, which are stored in f32.
  const exact = how === "stored" || device.name !== "reference";
  const limit = (kind: Kind, values: ArrayLike<number> = []) => {
    const { atol, rtol } = limitOf(device, kind, values);
    return exact ? { atol, rtol } : { atol: Math.max(atol, 1e-6), rtol: 1e-6 };
  };

  if (!test.learningRate) {
    const task = newTask(), [{ arrays, weight }] = task.draw({ count: 1 }), batch: Record<string, Tensor> = {};
    for (const [key, { values, shape }] of Object.entries(arrays)) {
      batch[key] = device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" });
    }
    const made = task.loss(model, batch);
    made.loss.backward(device.tensor([weight!], []));
    assertClose([await made.loss.item()], expected("losses").subarray(0, 1), limit("modules"), `${name}: loss`);
    const measures = { ...namedMeasures(task.measures, await made.outputs.data()), ...task.drawn() };
    assertClose(test.metrics!.map((key) => measures[key]), expected("m"), limit("modules"), `${name}: ${test.metrics}`);
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
    using trainer = new Trainer(model, newTask(), { ...run, ...rates, finalEvaluation: true, logInterval: 1 });
    const parameters = Array.from(model.namedParameters(), ([key, one]) => [`w.${key}`, one] as const);
    await assertUpdates(trainer, { name, parameters, expected, limit });
  }
  for (const one of [model, other]) one.dispose();
}

const fixture = readFixture<DpoCase>("dpo");
for (const device of await devices()) {
  for (const [number, { name, referenceFree }] of fixture.cases.entries()) {
    for (const how of referenceFree ? ["stored"] as const : ["stored", "policy", "computed"] as const) {
      Deno.test(`DPO, ${name}, reference ${how} (${device.name})`, () => check(device, fixture, number, how));
    }
  }
}
