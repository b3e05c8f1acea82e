/** Heads against transformers and GPT-1: logits, loss and every gradient, and ten updates of a trainer. */
import { assertEquals } from "@std/assert";
import { HeadRows } from "../../src/finetune/head_rows.ts";
import { HeadTask } from "../../src/finetune/head_task.ts";
import type { ProblemType } from "../../src/finetune/heads.ts";
import type { HeadKind, InputTokens } from "../../src/finetune/inputs.ts";
import type { Label } from "../../src/data/examples.ts";
import { numbered } from "../../src/checkpoint/hugging_face_heads.ts";
import { trainLastBlocks } from "../../src/finetune/transfer.ts";
import { GPT } from "../../src/gpt.ts";
import type { MicroBatch } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { assertUpdates } from "./updates.ts";
import { loadWeights } from "./weights.ts";

interface HeadCase {
  readonly name: string;
  readonly kind: HeadKind;
  readonly problemType: ProblemType;
  /** The number of labels, or of choices. */
  readonly count: number;
  readonly padTokenId?: number;
  readonly tokens?: InputTokens;
  readonly lmWeight: number;
}
interface StepsCase extends HeadCase {
  readonly steps: number;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly betas: readonly [number, number];
  readonly gradClip: number;
  readonly layerDecay?: number;
  readonly unfreezeEvery?: number;
}

const SIZES = { vocabSize: 19, blockSize: 16, nLayer: 2, nHead: 2, nEmbd: 8, activation: "gelu_new" } as const;
const fixture = readFixture<HeadCase | StepsCase>("heads");

function rowsOf(number: number): HeadRows {
  const { values, shape } = fixture.get(`${number}.rows`),
    [B, K, T] = shape.length === 3 ? shape : [shape[0], 1, shape[1]];
  const { values: labels, shape: [, width] } = fixture.get(`${number}.labels`), rows = new HeadRows();
  for (let row = 0; row < B; row++) {
    const sequences = Array.from({ length: K }, (_, k) => values.slice((row * K + k) * T, (row * K + k + 1) * T));
    const label = width ? Array.from(labels.slice(row * width, (row + 1) * width)) : labels[row];
    const several = fixture.cases[number].problemType === "multi_label_classification";
    // A row with several labels lists them: the labels whose value is not 0.
    const told: Label = several ? (label as number[]).flatMap((holds, id) => holds ? [id] : []) : label;
    rows.add(sequences.map((ids) => ids.filter((id) => id >= 0)), { where: `row ${row}`, label: told });
  }
  return rows;
}

function taskOf(
  model: GPT,
  number: number,
  batchSize: number,
  { kind, problemType, count, ...given }: Omit<HeadCase, "name">,
) {
  const rows = rowsOf(number), labelling = kind === "choose" ? undefined : { problemType, labels: numbered(count) };
  const { padTokenId, tokens, lmWeight, layerDecay, unfreezeEvery } = given as StepsCase;
  const options = { kind, labelling, batchSize, padTokenId, tokens, lmWeight, layerDecay, unfreezeEvery };
  const task = new HeadTask(model, { train: rows, val: rows }, { ...options, dropout: 0, shuffle: false });
  loadWeights(task.module, fixture, `${number}.h`);
  return task;
}

async function check({ device }: TestDevice, number: number) {
  const { name, ...given } = fixture.cases[number], before = device.memory().tensors;
  const model = new GPT(SIZES, { device });
  loadWeights(model, fixture, "w");
  const task = taskOf(model, number, 10, given), [batch] = task.evaluate("val", { count: 1 } as never) as MicroBatch[];
  const pass = () => {
    using scope = device.scope();
    const tensors = Object.entries(batch.arrays).map(([key, { values, shape }]) => {
      const dtype = values instanceof Int32Array ? "i32" : "f32";
      return [key, device.tensor(values, shape, { dtype })];
    });
    const { loss, outputs } = task.judge(model, Object.fromEntries(tensors));
    loss.backward();
    return { loss: scope.keep(loss), outputs: scope.keep(outputs) };
  };
  const { loss, outputs } = pass(), expected = (key: string) => fixture.get(`${number}.${key}`).values;
  assertClose(await outputs.data(), expected("logits"), limitOf(device, "logits"), `${name}: logits`);
  assertClose(await loss.data(), expected("loss"), limitOf(device, "loss"), `${name}: loss`);
  const parameters = new Map([
    ...model.namedParameters(),
    ...task.module.namedParameters().map(([key, one]) => [`task.${key}`, one] as const),
  ]);
  const gradients = [...fixture.tensors.keys()].filter((key) => key.startsWith(`${number}.grad.`));
  assertEquals(gradients.length, parameters.size);
  for (const [key, parameter] of parameters) {
    const values = expected(`grad.${key}`);
    // A bias common to all choices has no effect: its gradient is 0, except for rounding errors.
    const limit = key.endsWith("summary.bias") ? limitOf(device, "loss") : limitOf(device, "gradients", values);
    assertClose(await parameter.grad!.data(), values, limit, `${name}: gradient of ${key}`);
  }
  for (const one of [loss, outputs, task.module, model]) one.dispose();
  assertEquals(device.memory().tensors, before);
}

async function checkSteps({ device }: TestDevice, number: number) {
  const given = fixture.cases[number] as StepsCase, { name, steps, unfreezeEvery, betas: [beta1, beta2] } = given;
  const model = new GPT(SIZES, { device });
  loadWeights(model, fixture, "w");
  if (unfreezeEvery === undefined) trainLastBlocks(model, 0);
  const task = taskOf(model, number, 3, given), { learningRate, weightDecay, gradClip } = given;
  const rates = { learningRate, weightDecay, gradClip, beta1, beta2, decayLr: false };
  const counts = { gradientAccumulationSteps: 2, maxIters: steps - 1, evalInterval: 100, evalIters: 1, logInterval: 1 };
  using trainer = new Trainer(model, task, { ...rates, ...counts, warmupIters: 0 });
  const trained = new Map([...model.namedParameters(), ...task.module.namedParameters()]), prefix = `${number}.p.`;
  const keys = [...fixture.tensors.keys()].filter((key) => key.startsWith(prefix)).map((key) =>
    key.slice(prefix.length)
  );
  assertEquals(keys.length, unfreezeEvery === undefined ? 1 : trained.size);
  await assertUpdates(trainer, {
    ...{ name, parameters: keys.map((key) => [key, trained.get(key)!] as const) },
    expected: (key) => fixture.get(`${number}.${key}`).values,
    numbers: { losses: "curve", norms: "curve" },
  });
  task.module.dispose();
  model.dispose();
}

for (const on of await devices()) {
  for (const [number, given] of fixture.cases.entries()) {
    const run = "steps" in given ? checkSteps : check;
    Deno.test(`heads: ${given.name} (${on.name})`, () => run(on, number));
  }
}
