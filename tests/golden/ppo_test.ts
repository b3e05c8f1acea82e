/**
 * PPO against plain PyTorch (alignment.py): rewards, advantages, returns, losses, measures and gradients of an update,
 * and four updates.
 */
import { assertEquals } from "@std/assert";
import type { Tensor } from "../../src/engine/tensor.ts";
import { ProximalPolicy } from "../../src/finetune/ppo.ts";
import { type Iteration, iterationMeasures, updateNumbers } from "../../src/finetune/ppo_iteration.ts";
import { rowArrays } from "../../src/finetune/policy.ts";
import { PROXIMAL_MEASURES } from "../../src/finetune/ppo_loss.ts";
import { type KlEstimator, returnsOf } from "../../src/finetune/returns.ts";
import { plainReward } from "../../src/finetune/rewards.ts";
import { ValueHead, ValueModel } from "../../src/finetune/value.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { AdamW } from "../../src/optim/adamw.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { readFixture } from "./fixtures.ts";
import { limitOf, REFERENCE } from "./tolerances.ts";
import { withoutKeyBias } from "./updates.ts";
import { loadWeights } from "./weights.ts";

interface PpoCase {
  readonly name: string;
  readonly config: GPTConfig;
  readonly rows: readonly { readonly ids: readonly number[]; readonly from: number; readonly ended: boolean }[];
  readonly updates: readonly (readonly (readonly number[])[])[];
  readonly maxCompletionLength: number;
  readonly temperature: number;
  readonly klCoef: number;
  readonly klEstimator: KlEstimator;
  readonly gamma: number;
  readonly lam: number;
  readonly cliprange: number;
  readonly cliprangeValue: number;
  readonly vfCoef: number;
  readonly whitenRewards: boolean;
  readonly whitenAdvantages: boolean;
  readonly scoreAt: "end" | "behind";
  readonly value: "shared" | "model";
  readonly missingEosPenalty?: number;
  readonly ptx?: readonly (readonly number[])[];
  readonly ptxCoef?: number;
  readonly metrics?: readonly string[];
  readonly learningRate?: number;
  readonly weightDecay: number;
  readonly betas: readonly [number, number];
  readonly gradClip: number;
}

const fixture = readFixture<PpoCase>("ppo");

/** The recorded iteration of a case, with the advantages and returns computed from it. */
function iterationOf(number: number): Iteration {
  const test = fixture.cases[number], of = (key: string) => fixture.get(`${number}.${key}`).values;
  const { scoreAt, maxCompletionLength, missingEosPenalty = 0, lam: lambda, ...options } = test;
  const rollouts = test.rows.map((row, promptIndex) => ({ ...row, ids: Int32Array.from(row.ids), promptIndex }));
  let token = 0, place = 0;
  const texts = rollouts.map(({ ids, from, ended }, row) => {
    const count = ids.length - from, begin = token, places = place;
    token += count;
    place += count + (scoreAt === "behind" && count < maxCompletionLength ? 1 : 0);
    return {
      logprobs: of("old").subarray(begin, token),
      reference: of("ref").subarray(begin, token),
      values: of("values").subarray(places, place),
      score: of("scores")[row] - (ended ? 0 : missingEosPenalty),
    };
  });
  assertEquals([token, place], [of("old").length, of("values").length]);
  return { rollouts, texts, returns: returnsOf(texts, { ...options, lambda }) };
}

/** The weights of the policy (w) and of what is trained with it, by the letters of the fixture's names. */
function modulesOn({ device }: TestDevice, { config, value }: PpoCase) {
  const [model, reference, beside] = ["w", "r", "v"].map((letter) => {
    const model = new GPT(config, { device });
    loadWeights(model, fixture, letter);
    return model;
  });
  if (value === "shared") {
    const head = new ValueHead(model);
    loadWeights(head, fixture, "h");
    return { model, reference, value: head, trained: { w: model, h: head } };
  }
  const guess = new ValueModel(beside);
  device.write(guess.score.weight.storage, fixture.get("s.score.weight").values);
  const score = { namedParameters: () => [["score.weight", guess.score.weight] as const] };
  return { model, reference, value: guess, trained: { w: model, v: beside, s: score } };
}

/**
 * The gradient of this tensor is computed from v − R, a small difference that has the rounding errors of v. So its
 * limit is relative to the largest gradient of the module. Relative to the tensor's own gradient, PyTorch in float32
 * reaches 0.53 of the limit here, more than in any other case, and llvmpipe 1.12, only in this tensor.
 */
const CANCELS = "v.transformer.h.0.attn.c_attn.weight";

async function check(on: TestDevice, number: number) {
  const { device } = on,
    test = fixture.cases[number],
    { name, updates } = test,
    iteration = iterationOf(number);
  const expected = (key: string) => fixture.get(`${number}.${key}`).values;
  const flat = (lists: readonly ArrayLike<number>[]) => lists.flatMap((list) => Array.from(list));
  for (const key of ["rewards", "advantages", "returns"] as const) {
    assertClose(flat(iteration.returns.map((of) => of[key])), expected(key), REFERENCE, `${name}: ${key}`);
  }
  const { model, reference, value, trained } = modulesOn(on, test);
  const ids = Int32Array.of(1), prompts = [{ ids, prompt: "" }], rewards = [plainReward("none", () => 0)];
  using task = new ProximalPolicy(model, { train: prompts, val: prompts }, {
    batchSize: 1,
    maxNewTokens: test.maxCompletionLength,
    temperature: test.temperature,
    reference: reference.freeze(),
    rewards,
    decode: () => "",
    value,
    clipRange: test.cliprange,
    clipRangeValue: test.cliprangeValue,
    valueCoef: test.vfCoef,
    pretraining: test.ptx && { tokens: ids, coef: test.ptxCoef!, batchSize: 1 },
  });
  const named = Object.entries(trained).flatMap(([letter, module]) =>
    [...module.namedParameters()].map(([key, parameter]) => [`${letter}.${key}`, parameter] as const)
  );
  const pass = async (rows: readonly number[]) => {
    const run = () => {
      using scope = device.scope();
      const { loss, outputs } = task.loss(model, batchOf(iteration, rows, model, test));
      loss.backward();
      return [scope.keep(loss), scope.keep(outputs)];
    };
    const [loss, outputs] = run();
    return { loss: await loss.item(), measures: [...await outputs.data()] };
  };

  const { learningRate, weightDecay, betas, gradClip } = test, losses: number[] = [], norms: number[] = [];
  using optimizer = learningRate === undefined
    ? undefined
    : new AdamW(named.map(([key, one]) => [key, one]), { learningRate, weightDecay, betas });
  let measured: Record<string, number> = {};
  for (const [rows] of updates) {
    const { loss, measures } = await pass(rows);
    losses.push(loss);
    if (losses.length === 1) {
      const names = [...PROXIMAL_MEASURES, "loss/ptx_avg"];
      measured = {
        ...iterationMeasures(iteration, test.klCoef),
        ...Object.fromEntries(measures.map((x, i) => [names[i], x])),
      };
    }
    if (!optimizer) break;
    optimizer.prepare({ learningRate, gradClip });
    optimizer.update();
    norms.push(await optimizer.gradNorm.item());
    optimizer.zeroGrad();
  }
  assertClose(losses, expected("losses"), limitOf(device, "modules"), `${name}: losses`);
  assertClose(
    test.metrics!.map((key) => measured[key]),
    expected("m"),
    limitOf(device, "modules"),
    `${name}: ${test.metrics}`,
  );
  if (optimizer) assertClose(norms, expected("norms"), limitOf(device, "modules"), `${name}: norms`);
  for (const [key, parameter] of named) {
    if (optimizer) {
      assertClose(
        withoutKeyBias(key, await parameter.data()),
        withoutKeyBias(key, expected(`p.${key}`)),
        limitOf(device, "trained"),
        `${name}: ${key}`,
      );
    } else {
      // deno-lint-ignore plain-words/words -- the name of a case in the fixture
      const scale = key === CANCELS && name === "score behind the end, a model beside"
        ? named.filter(([other]) => other[0] === key[0]).flatMap(([other]) => [...expected(`g.${other}`)])
        : expected(`g.${key}`);
      const limit = limitOf(device, "gradients", scale);
      assertClose(await parameter.grad!.data(), expected(`g.${key}`), limit, `${name}: gradient of ${key}`);
    }
  }
  for (const one of [model, reference, value]) one.dispose();
}

/** A batch in the device's precision, f64 or f32. */
function batchOf(
  iteration: Iteration,
  rows: readonly number[],
  { device }: GPT,
  { config: { vocabSize }, ptx }: PpoCase,
): Record<string, Tensor> {
  const total = (key: "advantages" | "returns") =>
    rows.reduce((sum, row) => sum + iteration.returns[row][key].length, 0);
  const T = Math.max(...rows.map((row) => iteration.rollouts[row].ids.length)), batchSize = rows.length;
  const seen = rowArrays(rows.map((row) => iteration.rollouts[row]), {
    lengths: [T],
    batchSize,
    vocabSize: vocabSize!,
  });
  const options = { batchSize, T, tokens: total("advantages"), places: total("returns") };
  const batch: Record<string, Tensor> = {};
  for (const [name, { values }] of Object.entries(seen)) {
    batch[name] = device.tensor(values, [batchSize, T], { dtype: "i32" });
  }
  for (const [name, values] of Object.entries(updateNumbers(iteration, rows, options))) {
    batch[name] = device.tensor(values, [batchSize, T]);
  }
  if (!ptx) return batch;
  const longest = Math.max(...ptx.map(({ length }) => length)) - 1;
  const padded = (from: number, pad: number) =>
    ptx.flatMap((row) => Array.from({ length: longest }, (_, t) => t + 1 < row.length ? row[t + from] : pad));
  const like = [[ptx.length, longest], { dtype: "i32" }] as const;
  batch.pretrainingTokens = device.tensor(padded(0, 0), ...like);
  batch.pretrainingTargets = device.tensor(padded(1, -1), ...like);
  batch.pretrainingShare = device.tensor([1], []);
  return batch;
}

for (const device of await devices()) {
  for (const [number, { name }] of fixture.cases.entries()) {
    Deno.test(`PPO, ${name} (${device.name})`, () => check(device, number));
  }
}
