/** Training runs from a seed against PyTorch: batches, losses, gradient norms, learning rates, evaluations. */
import { getBatch } from "../../src/data/mod.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";

interface CurveCase {
  readonly name: string;
  readonly config: GPTConfig;
  /** Options under train.py's names. */
  readonly flags: Readonly<Record<string, number>>;
}
const EXACT = { atol: 0, rtol: 0 };

/** Draws in train.py's order: weights, the first batch, then evaluations and one batch per micro-step. */
async function checkBatches(fixture: Fixture<CurveCase>, number: number) {
  const { name, config, flags } = fixture.cases[number],
    generator = new RandomGenerator(flags.seed),
    offsets: number[] = [];
  new GPT(config, { device: await createDevice("reference"), generator });
  const data = { train: idsOf(fixture, "train"), val: idsOf(fixture, "val") };
  const draw = (split: "train" | "val", times: number) => {
    const options = { blockSize: config.blockSize, batchSize: flags.batch_size, generator };
    for (let i = 0; i < times; i++) offsets.push(...getBatch(data[split], options).offsets);
  };
  draw("train", 1);
  for (let iteration = 0; iteration <= flags.max_iters; iteration++) {
    if (iteration % flags.eval_interval === 0) {
      draw("train", flags.eval_iters);
      draw("val", flags.eval_iters);
    }
    draw("train", flags.gradient_accumulation_steps);
  }
  assertClose(offsets, fixture.get(`${number}.offsets`).values, EXACT, `${name}: offsets of the batches`);
}

async function checkCurve({ device }: TestDevice, fixture: Fixture<CurveCase>, number: number) {
  const { name, config, flags } = fixture.cases[number], { seed, ...others } = flags;
  const generator = new RandomGenerator(seed), model = new GPT(config, { device, generator });
  const camel = Object.entries(others).map((
    [flag, value],
  ) => [flag.replace(/_(.)/g, (_, c) => c.toUpperCase()), value]);
  const data = { train: idsOf(fixture, "train"), val: idsOf(fixture, "val") };
  const trainer = new Trainer(model, data, { ...Object.fromEntries(camel), generator });
  const losses: number[] = [], norms: number[] = [], rates: number[] = [], evaluations: number[] = [];
  for await (const event of trainer.run()) {
    if (event.kind === "step") {
      losses.push(event.loss);
      norms.push(event.gradNorm);
      rates.push(event.lr);
    } else if (event.kind === "evaluation") evaluations.push(event.trainLoss, event.valLoss);
  }
  for (const [key, values] of Object.entries({ losses, norms, evaluations })) {
    assertClose(values, fixture.get(`${number}.${key}`).values, limitOf(device, "curve"), `${name}: ${key}`);
  }
  assertClose(rates, fixture.get(`${number}.rates`).values, { atol: 0, rtol: 1e-14 }, `${name}: learning rates`);
}

const idsOf = (fixture: Fixture<CurveCase>, split: "train" | "val") => Int32Array.from(fixture.get(split).values);

const all = await devices(), fixture = readFixture<CurveCase>("curves");
for (const [number, { name }] of fixture.cases.entries()) {
  Deno.test(`batches of a run ${name}`, () => checkBatches(fixture, number));
  for (const on of all) Deno.test(`51 updates of a run ${name} (${on.name})`, () => checkCurve(on, fixture, number));
}
