/** Sampled token ids: with the same seed they must equal the ids of PyTorch's model, on every device. */
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { generate } from "../../src/generate/generate.ts";
import { devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { loadWeights } from "./weights.ts";

interface SamplingCase {
  readonly name: string;
  readonly config: GPTConfig;
  readonly seed: number;
  readonly temperature: number;
  readonly topK: number | null;
}

async function check({ device }: TestDevice, fixture: Fixture<SamplingCase>, number: number) {
  const { name, config, seed, temperature, topK } = fixture.cases[number];
  const model = new GPT(config, { device });
  loadWeights(model, fixture, "w");
  model.eval();
  const { values: expected } = fixture.get(`${number}.tokens`), tokens: number[] = [];
  const options = { maxNewTokens: expected.length, temperature, topK: topK ?? undefined, seed };
  for await (const token of generate(model, fixture.get(`${number}.prompt`).values, options)) tokens.push(token);
  if (tokens.length !== expected.length) throw new Error(`${name}: ${tokens.length} tokens, not ${expected.length}`);
  const at = tokens.findIndex((token, i) => token !== expected[i]);
  if (at >= 0) throw new Error(`${name}: token ${at} is ${tokens[at]}, expected ${expected[at]}`);
}

const all = await devices(), fixture = readFixture<SamplingCase>("sampling");
for (const [number, { name }] of fixture.cases.entries()) {
  for (const on of all) Deno.test(`200 tokens, ${name} (${on.name})`, () => check(on, fixture, number));
}
