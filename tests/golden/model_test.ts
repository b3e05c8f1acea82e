/**
 * The whole model against PyTorch: initial weights from a seed, logits, loss, and the gradient of every parameter; and
 * rows that hold several documents, against PyTorch's results for each document alone.
 */
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { assertClose, assertShape, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { loadWeights } from "./weights.ts";

interface ModelCase {
  readonly name: string;
  readonly seed: number;
  readonly config: GPTConfig;
}

async function checkModel({ device }: TestDevice, fixture: Fixture<ModelCase>, number: number) {
  const { name, seed, config } = fixture.cases[number];
  const model = new GPT(config, { device, seed });
  loadWeights(model, fixture, `${number}.w`);
  const ids = (key: string) => {
    const { values, shape } = fixture.get(`${number}.${key}`);
    return device.tensor(values, shape, { dtype: "i32" });
  };
  const expected = (key: string) => fixture.get(`${number}.${key}`);
  const packed = fixture.tensors.has(`${number}.starts`);
  const options = packed ? { starts: ids("starts"), positions: ids("positions") } : {};
  const { logits, loss } = model.forward(ids("tokens"), ids("targets"), options);
  loss.backward();
  assertShape(logits, expected("logits").shape, `${name}: logits`);
  assertShape(loss, [], `${name}: loss`);
  assertClose(await logits.data(), expected("logits").values, limitOf(device, "logits"), `${name}: logits`);
  assertClose(await loss.data(), expected("loss").values, limitOf(device, "loss"), `${name}: loss`);
  for (const [key, parameter] of model.namedParameters()) {
    const { values } = expected(`w.${key}.grad`);
    assertClose(
      await parameter.grad!.data(),
      values,
      limitOf(device, "gradients", values),
      `${name}: gradient of ${key}`,
    );
  }
  const last = model.forward(ids("tokens"), undefined, options);
  assertShape(last.logits, expected("last").shape, `${name}: logits without targets`);
  assertClose(await last.logits.data(), expected("last").values, limitOf(device, "logits"), `${name}: last logits`);
}

/** The first tokens in one pass and further tokens one by one must give the same logits as all tokens in one pass. */
async function checkCache({ device }: TestDevice, fixture: Fixture<ModelCase>, number: number, prefix: number) {
  const { name, config } = fixture.cases[number];
  const model = new GPT(config, { device });
  loadWeights(model, fixture, `${number}.w`);
  const { values: tokens, shape: [B, T] } = fixture.get(`${number}.tokens`);
  const { values: logits } = fixture.get(`${number}.logits`), V = config.vocabSize;
  const cache = model.createCache(B);
  for (let begin = 0, end = prefix; end <= T; begin = end++) {
    const rows = Array.from({ length: B }, (_, b) => [...tokens.slice(b * T + begin, b * T + end)]);
    const ids = device.tensor(rows.flat(), [B, end - begin], { dtype: "i32" });
    const actual = await model.forward(ids, undefined, { cache }).logits.data();
    const expected = rows.map((_, b) => [...logits.slice((b * T + end - 1) * V, (b * T + end) * V)]);
    assertClose(actual, expected.flat(), limitOf(device, "logits"), `${name}: logits of position ${end - 1}`);
  }
}

async function checkInitial({ device }: TestDevice, fixture: Fixture<ModelCase>, number: number) {
  const { name, seed, config } = fixture.cases[number];
  const generator = new RandomGenerator(seed);
  const model = new GPT(config, { device, generator });
  const names = [...fixture.tensors.keys()].filter((key) => key.startsWith(`${number}.w.`));
  const own = [...model.namedParameters()];
  if (own.length !== names.length) throw new Error(`${name}: ${own.length} parameters, expected ${names.length}`);
  for (const [key, parameter] of own) {
    const { values, shape } = fixture.get(`${number}.w.${key}`);
    assertShape(parameter, shape, `${name}: ${key}`);
    assertClose(await parameter.data(), values, limitOf(device, "initial"), `${name}: ${key}`);
  }
  const next = Array.from({ length: 16 }, () => generator.randint(2 ** 28 - 1));
  assertClose(next, fixture.get(`${number}.next`).values, { atol: 0, rtol: 0 }, `${name}: words drawn afterwards`);
}

const all = await devices();
const models = readFixture<ModelCase>("models"),
  documents = readFixture<ModelCase>("documents"),
  initial = readFixture<ModelCase>("initial");
const fixtureLength = (number: number) => models.get(`${number}.tokens`).shape[1];
for (const on of all) {
  for (const [number, { name }] of models.cases.entries()) {
    Deno.test(`model of ${name} (${on.name})`, () => checkModel(on, models, number));
  }
  for (const [number, { name }] of documents.cases.entries()) {
    Deno.test(`model of ${name} (${on.name})`, () => checkModel(on, documents, number));
  }
  for (const [number, { name, config }] of models.cases.entries()) {
    if (config.dropout > 0) continue; // a cache is only used for generation
    for (const prefix of new Set([1, Math.min(5, fixtureLength(number))])) {
      Deno.test(`key-value cache after ${prefix} of ${name} (${on.name})`, () =>
        checkCache(on, models, number, prefix));
    }
  }
  for (const [number, { name }] of initial.cases.entries()) {
    Deno.test(`initial weights from ${name} (${on.name})`, () => checkInitial(on, initial, number));
  }
}
