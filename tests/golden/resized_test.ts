/** A vocabulary that grows, against transformers' model with the same new rows (fixtures of generate_resized.py). */
import { assertEquals, assertThrows } from "@std/assert";
import { createDevice } from "../../src/device/create.ts";
import { ConfigError } from "../../src/errors.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { assertClose, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { loadWeights } from "./weights.ts";

interface ResizedCase {
  readonly name: string;
  readonly config: GPTConfig;
  readonly vocabSize: number;
}

async function check({ device }: TestDevice, fixture: Fixture<ResizedCase>, number: number) {
  const { name, config, vocabSize } = fixture.cases[number], model = new GPT(config, { device });
  loadWeights(model, fixture, `${number}.w`);
  model.eval();
  const before = device.memory().tensors;
  model.resizeTokenEmbeddings(vocabSize);
  assertEquals([model.config.vocabSize, device.memory().tensors], [vocabSize, before]);
  assertEquals(model.transformer.wte.weight === model.lm_head.weight, config.tieWordEmbeddings);
  const parameters = new Map(model.namedParameters());
  for (const key of fixture.tensors.keys()) {
    const [of, prefix, ...path] = key.split(".");
    if (of !== `${number}` || prefix !== "after") continue;
    const weight = parameters.get(path.join("."))!, { values } = fixture.get(key);
    assertClose(await weight.data(), values, limitOf(device, "reduction"), `${name}: ${key}`);
    assertEquals(weight.requiresGrad, true);
  }
  const ids = (key: string) => {
    const { values, shape } = fixture.get(`${number}.${key}`);
    return device.tensor(values, shape, { dtype: "i32" });
  };
  const { logits, loss } = model.forward(ids("tokens"), ids("targets")), { values } = fixture.get(`${number}.logits`);
  assertClose(await logits.data(), values, limitOf(device, "logits"), `${name}: logits`);
  assertClose(await loss.data(), fixture.get(`${number}.loss`).values, limitOf(device, "loss"), `${name}: loss`);
  loss.backward();
  assertEquals(parameters.get("transformer.wte.weight")!.grad!.shape, [vocabSize, config.nEmbd]);
}

const fixture = readFixture<ResizedCase>("transformers/resized");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const on of await devices()) Deno.test(`more tokens, ${name} (${on.name})`, () => check(on, fixture, number));
}

Deno.test("rows that padded a vocabulary are drawn again when they become tokens; weights that are not f32 are refused", async () => {
  const device = await createDevice("reference"), sizes = { blockSize: 4, nLayer: 1, nHead: 2, nEmbd: 32 };
  const model = new GPT({ ...sizes, vocabSize: 8 }, { device }), old = await model.lm_head.weight.data();
  model.resizeTokenEmbeddings(7, { known: 5 });
  const now = await model.lm_head.weight.data(),
    row = (of: ArrayLike<number>, n: number) => Array.from(of).slice(32 * n, 32 * n + 32);
  assertEquals(model.config.vocabSize, 8);
  const mean = row(old, 0).map((_, c) => [0, 1, 2, 3, 4].reduce((sum, n) => sum + old[32 * n + c], 0) / 5);
  for (const n of [5, 6]) assertClose(row(now, n), mean, { atol: 1e-15, rtol: 1e-13 }, `row ${n}`);
  for (const n of [0, 1, 2, 3, 4, 7]) assertEquals(row(now, n), row(old, n));
  model.resizeTokenEmbeddings(6);
  assertEquals(await model.lm_head.weight.data(), now);
  for (const [wrong, options] of [[0, {}], [9.5, {}], [9, { known: 9 }], [9, { known: 0 }]] as const) {
    assertThrows(() => model.resizeTokenEmbeddings(wrong, options), ConfigError, "expected a whole number from 1 to");
  }
  for (const weights of ["bf16", "q8_0"] as const) {
    const other = new GPT({ ...sizes, vocabSize: 8 }, { device, weights });
    assertThrows(() => other.resizeTokenEmbeddings(9), ConfigError, `wte.weight is stored in ${weights}`);
  }
});
