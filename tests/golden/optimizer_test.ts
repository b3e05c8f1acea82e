/** Ten steps of AdamW with clipping, and the learning rate's schedule. */
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { learningRate } from "../../src/optim/schedule.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { type Kind, limitOf } from "./tolerances.ts";
import { loadWeights } from "./weights.ts";

interface StepsCase {
  readonly name: string;
  /** A model that computes the gradients. If undefined, the fixture has them. */
  readonly config?: GPTConfig;
  readonly betas: readonly [number, number];
  readonly weightDecay: number;
  readonly gradClip: number;
  /** One for each step. */
  readonly learningRates: readonly number[];
}

async function check(on: TestDevice, fixture: Fixture<StepsCase>, number: number) {
  const test = fixture.cases[number], { name, betas, weightDecay, gradClip, learningRates } = test;
  const { parameters, backward } = test.config ? model(on, fixture, number) : given(on, fixture, number);
  const optimizer = new AdamW(parameters, { betas, weightDecay });
  const [state, moments]: Kind[] = test.config ? ["trained", "gradients"] : ["optimizer", "optimizer"];
  const norms: number[] = [], losses: number[] = [];
  for (const [i, learningRate] of learningRates.entries()) {
    const step = i + 1;
    const loss = backward(step);
    if (loss) losses.push(await loss.item());
    optimizer.step({ learningRate, gradClip });
    norms.push(await optimizer.gradNorm.item());
    optimizer.zeroGrad();
    if (!fixture.tensors.has(`${number}.${step}.p.${parameters[0][0]}`)) continue;
    const after = new Map<string, Tensor>(optimizer.namedState());
    for (const [key, parameter] of parameters) {
      for (
        const [letter, tensor, kind] of [
          ["p", parameter, state],
          ["m", after.get(`${key}.exp_avg`)!, moments],
          ["v", after.get(`${key}.exp_avg_sq`)!, moments],
        ] as const
      ) {
        const { values } = fixture.get(`${number}.${step}.${letter}.${key}`);
        const limit = limitOf(on.device, kind, kind === "gradients" ? values : []);
        assertClose(await tensor.data(), values, limit, `${name}: ${letter} of ${key} after step ${step}`);
      }
    }
  }
  if (test.config) {
    assertClose(losses, fixture.get(`${number}.losses`).values, limitOf(on.device, "loss"), `${name}: losses`);
  }
  assertClose(norms, fixture.get(`${number}.norms`).values, limitOf(on.device, "norms"), `${name}: gradient norms`);
}

function given({ device }: TestDevice, fixture: Fixture<StepsCase>, number: number) {
  const parameters: (readonly [string, Tensor])[] = [];
  for (const [key, { values, shape }] of fixture.tensors) {
    if (!key.startsWith(`${number}.w.`)) continue;
    parameters.push([key.split(".")[2], device.tensor(values, shape, { requiresGrad: true })]);
  }
  const backward = (step: number): Tensor | undefined => {
    for (const [key, { grad }] of parameters) {
      device.write(grad!.storage, fixture.get(`${number}.${step}.g.${key}`).values);
    }
    return undefined;
  };
  return { parameters, backward };
}

function model({ device }: TestDevice, fixture: Fixture<StepsCase>, number: number) {
  const gpt = new GPT(fixture.cases[number].config!, { device });
  loadWeights(gpt, fixture, `${number}.w`);
  const ids = (key: string, step: number) => {
    const { values, shape: [steps, B, T] } = fixture.get(`${number}.${key}`), size = values.length / steps;
    return device.tensor(values.slice((step - 1) * size, step * size), [B, T], { dtype: "i32" });
  };
  const backward = (step: number) => {
    const { loss } = gpt.forward(ids("tokens", step), ids("targets", step));
    loss.backward();
    return loss;
  };
  return { parameters: [...gpt.namedParameters()], backward };
}

const all = await devices(), fixture = readFixture<StepsCase>("optimizer");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const on of all) Deno.test(`ten steps of AdamW, ${name} (${on.name})`, () => check(on, fixture, number));
}

interface ScheduleCase {
  readonly name: string;
  readonly learning_rate: number;
  readonly warmup_iters: number;
  readonly lr_decay_iters: number;
  readonly min_lr: number;
}
const schedule = readFixture<ScheduleCase>("schedule");
for (const [number, flags] of schedule.cases.entries()) {
  Deno.test(`schedule with ${flags.name}`, () => {
    const options = {
      learningRate: flags.learning_rate,
      warmupIters: flags.warmup_iters,
      lrDecayIters: flags.lr_decay_iters,
      minLr: flags.min_lr,
      decayLr: true,
    };
    const rates = Array.from(schedule.get(`${number}.iterations`).values, (at) => learningRate(at, options));
    assertClose(rates, schedule.get(`${number}.rates`).values, { atol: 0, rtol: 1e-14 }, flags.name);
  });
}
