/**
 * Supervised tuning against TRL's SFTTrainer: logits, loss and gradients of the first update, and ten updates by the
 * trainer with their measures.
 */
import { TokenRows } from "../../src/data/token_rows.ts";
import { SupervisedTuning } from "../../src/finetune/sft.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import type { TrainerOptions } from "../../src/train/options.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { assertUpdates } from "./updates.ts";
import { loadWeights } from "./weights.ts";

type Options = Pick<
  TrainerOptions,
  | "batchSize"
  | "gradientAccumulationSteps"
  | "maxIters"
  | "warmupIters"
  | "learningRate"
  | "weightDecay"
  | "beta1"
  | "beta2"
  | "gradClip"
>;
interface SftCase extends Options {
  readonly name: string;
  readonly config: GPTConfig;
  readonly maxLength: number;
  readonly packing: boolean;
  readonly lengths: readonly number[];
}

async function check({ device }: TestDevice, fixture: Fixture<SftCase>, number: number) {
  const { name, config, lengths, maxLength, packing, ...options } = fixture.cases[number];
  const expected = (key: string) => fixture.get(`${number}.${key}`).values;
  const model = new GPT(config, { device }), rows = new TokenRows();
  loadWeights(model, fixture, "w");
  let begin = 0;
  for (const length of lengths) {
    const of = (key: string) => expected(key).slice(begin, begin + length);
    rows.push({ ids: Int32Array.from(of("ids")), learned: Uint8Array.from(of("learned")) });
    begin += length;
  }
  const { batchSize, gradientAccumulationSteps: count, maxIters } = options;
  const newTask = () =>
    new SupervisedTuning(model, { train: rows, val: rows }, { batchSize, maxLength, packing, shuffle: false });

  let loss = 0;
  for (const [i, { arrays, weight }] of [...newTask().draw({ count })].entries()) {
    const batch: Record<string, Tensor> = {};
    for (const [key, { values, shape }] of Object.entries(arrays)) {
      batch[key] = device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" });
    }
    const { loss: mean } = newTask().loss(model, batch);
    mean.backward(device.tensor([weight!], []));
    loss += weight! * await mean.item();
    if (i > 0) continue;
    const { logits } = model.forward(batch.tokens, batch.targets, batch), values = await logits.data();
    // Leaves out the logits of padding, the only tokens with id 0.
    const real = values.filter((_, at) => arrays.tokens.values[Math.floor(at / config.vocabSize)] > 0);
    assertClose(real, expected("logits"), limitOf(device, "logits"), `${name}: logits`);
  }
  assertClose([loss], expected("losses").subarray(0, 1), limitOf(device, "loss"), `${name}: loss`);
  for (const [key, parameter] of model.namedParameters()) {
    const values = expected(`g.${key}`), limit = limitOf(device, "gradients", values);
    assertClose(await parameter.grad!.data(), values, limit, `${name}: gradient of ${key}`);
    parameter.grad = undefined;
  }

  const ten = {
    ...options,
    lrSchedulerType: "linear",
    lrDecayIters: maxIters,
    minLr: 0,
    finalEvaluation: true,
  } as const;
  using trainer = new Trainer(model, newTask(), { ...ten, evalInterval: 100, evalIters: 1, logInterval: 1 });
  await assertUpdates(trainer, {
    ...{ name, parameters: model.namedParameters(), expected },
    numbers: { losses: "loss", norms: "norms", entropy: "loss", mean_token_accuracy: "loss", num_tokens: "initial" },
  });
}

const all = await devices(), fixture = readFixture<SftCase>("sft");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const on of all) Deno.test(`supervised tuning, ${name} (${on.name})`, () => check(on, fixture, number));
}
