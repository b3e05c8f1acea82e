/** Ten steps of a model that is trained in part, or whose parts have different learning rates. */
import { assertEquals } from "@std/assert";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { loadWeights } from "./weights.ts";

interface TuningCase {
  readonly name: string;
  readonly config: GPTConfig;
  readonly betas: readonly [number, number];
  readonly gradClip: number;
  /** The optimizer's learning rate; a step's rate is this times the step's factor. */
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly factors: readonly number[];
  readonly groups: readonly { names: readonly string[]; learningRate?: number; weightDecay?: number }[];
}

async function check({ device }: TestDevice, fixture: Fixture<TuningCase>, number: number) {
  const { name, config, betas, gradClip, learningRate, weightDecay, factors, groups } = fixture.cases[number];
  const model = new GPT(config, { device });
  loadWeights(model, fixture, `${number}.w`);
  const all = new Map(model.namedParameters()), trained = new Set(groups.flatMap(({ names }) => names));
  const frozen = new Map([...all].filter(([key]) => !trained.has(key))), options = { learningRate, weightDecay, betas };
  if (frozen.size > 0) {
    model.freeze();
    model.transformer.h.at(-1)!.unfreeze();
  }
  const optimizer = frozen.size > 0 ? model.configureOptimizers(options) : new AdamW(
    groups.map(({ names, ...rates }) => ({
      ...rates,
      parameters: names.map((key) => [key, all.get(key)!] as const),
    })),
    options,
  );
  const ids = (key: string, step: number) => {
    const { values, shape: [steps, B, T] } = fixture.get(`${number}.${key}`), size = values.length / steps;
    return device.tensor(values.slice((step - 1) * size, step * size), [B, T], { dtype: "i32" });
  };
  const losses: number[] = [], norms: number[] = [];
  for (const [i, factor] of factors.entries()) {
    const step = i + 1, { loss } = model.forward(ids("tokens", step), ids("targets", step));
    loss.backward();
    losses.push(await loss.item());
    optimizer.step({ learningRate: learningRate * factor, gradClip });
    norms.push(await optimizer.gradNorm.item());
    optimizer.zeroGrad();
    if (step > 1 && step < factors.length) continue;
    const state = new Map(optimizer.namedState());
    assertEquals([...state.keys()].length, 2 * trained.size);
    for (const key of trained) {
      for (
        const [letter, tensor, kind] of [
          ["p", all.get(key)!, "trained"],
          ["m", state.get(`${key}.exp_avg`)!, "gradients"],
          ["v", state.get(`${key}.exp_avg_sq`)!, "gradients"],
        ] as const
      ) {
        const { values } = fixture.get(`${number}.${step}.${letter}.${key}`);
        const limit = limitOf(device, kind, kind === "gradients" ? values : []);
        assertClose(await tensor.data(), values, limit, `${name}: ${letter} of ${key} after step ${step}`);
      }
    }
  }
  for (const [key, parameter] of frozen) {
    assertEquals([...await parameter.data()], [...fixture.get(`${number}.w.${key}`).values], `${key} is frozen`);
    assertEquals(parameter.grad, undefined, `${key} is frozen`);
  }
  assertClose(losses, fixture.get(`${number}.losses`).values, limitOf(device, "loss"), `${name}: losses`);
  assertClose(norms, fixture.get(`${number}.norms`).values, limitOf(device, "norms"), `${name}: gradient norms`);
}

const all = await devices(), fixture = readFixture<TuningCase>("tuning");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const on of all) Deno.test(`ten steps, ${name} (${on.name})`, () => check(on, fixture, number));
}
