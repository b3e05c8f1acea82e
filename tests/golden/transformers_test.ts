/**
 * Features, losses, logits processors and generation against transformers' GPT-2 (fixtures of
 * generate_transformers.py).
 */
import { assert, assertEquals } from "@std/assert";
import { noGrad } from "../../src/engine/autograd.ts";
import { perplexity } from "../../src/evaluate/perplexity.ts";
import { features } from "../../src/evaluate/features.ts";
import type { SequencesOptions } from "../../src/generate/options.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";
import { chosen } from "../engine/choosing.ts";
import { pipeline, setSeed, type TextGenerationOptions } from "../../src/pretrained/pipeline.ts";
import { generateSequences } from "../../src/generate/generate.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { assertClose, assertShape, devices, type TestDevice } from "../testing.ts";
import { type Fixture, readFixture } from "./fixtures.ts";
import { limitOf } from "./tolerances.ts";
import { loadWeights } from "./weights.ts";

interface Case {
  readonly name: string;
  readonly config: GPTConfig;
}
type PerplexityCase = Case & { length: number; maxLength: number; stride: number; judged: number };
type ProcessorCase = { name: string; prompt: number; options: SamplingOptions };
type PipelineCase = Case & { seed: number; prompt: string; options: TextGenerationOptions; texts: string[] };
type GenerationCase = Case & { seed: number; options: SequencesOptions };

function modelOf({ device }: TestDevice, fixture: Fixture<Case>): GPT {
  const model = new GPT(fixture.cases[0].config, { device });
  loadWeights(model, fixture, "w");
  return model.eval();
}

async function checkFeatures(on: TestDevice, fixture: Fixture<Case>, number: number) {
  const { device } = on, model = modelOf(on, fixture), { name } = fixture.cases[number];
  const ids = (key: string) => {
    const { values, shape } = fixture.get(`${number}.${key}`);
    return device.tensor(values, shape, { dtype: "i32" });
  };
  const before = device.memory().tensors, tokens = ids("tokens"), labels = ids("labels");
  const out = noGrad(() =>
    features(model, tokens, { labels, outputHiddenStates: true, outputAttentions: true, useCache: true })
  );
  const given = {
    ...Object.fromEntries(out.hiddenStates!.map((state, i) => [`hidden.${i}`, state])),
    ...Object.fromEntries(out.attentions!.map((attention, i) => [`attention.${i}`, attention])),
    ...Object.fromEntries(out.pastKeyValues!.flatMap(([key, value], i) => [[`key.${i}`, key], [`value.${i}`, value]])),
    logits: out.logits!,
    loss: out.loss,
  };
  const wanted = [...fixture.tensors.keys()].filter((key) => key.startsWith(`${number}.`)).length - 2; // without tokens and labels
  assertEquals(Object.keys(given).length, wanted);
  for (const [key, tensor] of Object.entries(given)) {
    const { values, shape } = fixture.get(`${number}.${key}`);
    assertShape(tensor, shape, `${name}: ${key}`);
    assertClose(await tensor.data(), values, limitOf(device, key === "loss" ? "loss" : "logits"), `${name}: ${key}`);
  }
  assert(out.lastHiddenState === out.hiddenStates!.at(-1));
  assertEquals(device.memory().tensors, before + 2 + Object.keys(given).length); // no other tensor remains
  const alone = noGrad(() => features(model, tokens));
  assertEquals(Object.keys(alone), ["lastHiddenState"]);
  assertClose(await alone.lastHiddenState.data(), await out.lastHiddenState.data(), { atol: 0, rtol: 0 }, name);
  for (const tensor of [tokens, labels, alone.lastHiddenState, ...Object.values(given)]) tensor.dispose();
}

async function checkPerplexity(on: TestDevice, fixture: Fixture<PerplexityCase>, number: number) {
  const { name, length, maxLength, stride, judged } = fixture.cases[number], model = modelOf(on, fixture);
  const tokens = fixture.get("tokens").values.slice(0, length), seen: number[] = [];
  const onProgress = (done: number, total: number) => seen.push(done / total);
  const result = await perplexity(model, tokens, { maxLength, stride, onProgress });
  const limit = limitOf(on.device, "loss"), expected = (key: string) => fixture.get(`${number}.${key}`).values;
  const theirs = Math.log(result.transformersPerplexity);
  assertClose([theirs], [Math.log(expected("perplexity")[0])], limit, `${name}: log perplexity`);
  assertEquals(result.perplexity, Math.exp(result.loss));
  assertClose([result.loss], expected("loss"), limit, `${name}: loss`);
  assertEquals(result.tokens, judged);
  assertEquals(seen.at(-1), 1);
}

async function checkGeneration(on: TestDevice, fixture: Fixture<GenerationCase>, number: number) {
  const { name, options, seed } = fixture.cases[number], model = modelOf(on, fixture);
  const prompt = fixture.get(`${number}.prompt`).values, count = options.numReturnSequences ?? 1;
  for (const logprobs of [false, true]) { // without logprobs the token is chosen on the device if possible, with logprobs on the host
    const ids: number[][] = Array.from({ length: count }, () => []), logs: number[][] = ids.map(() => []);
    const reasons: (string | undefined)[] = [];
    for await (const token of generateSequences(model, prompt, { ...options, seed, logprobs })) {
      assertEquals(reasons[token.sequence], undefined); // no token may follow the last one
      ids[token.sequence].push(token.id);
      logs[token.sequence].push(token.logprob ?? NaN);
      if (token.finishReason) reasons[token.sequence] = token.finishReason;
    }
    for (const [i, row] of ids.entries()) {
      assertEquals(row, [...fixture.get(`${number}.tokens.${i}`).values], `${name}: sequence ${i}`);
      const ends = [options.eosTokenId ?? []].flat();
      assertEquals(reasons[i], ends.includes(row.at(-1)!) ? "stop" : "length");
      if (!logprobs) continue;
      // generate rounds logits to f32 first
      const limit = { atol: 5e-6, rtol: 5e-6 };
      assertClose(logs[i], fixture.get(`${number}.logprobs.${i}`).values, limit, `${name}: log-probabilities of ${i}`);
    }
  }
}

async function checkPipeline(on: TestDevice, fixture: Fixture<PipelineCase>, number: number) {
  const { name, seed, prompt, options, texts } = fixture.cases[number], model = modelOf(on, fixture);
  const tokenizer = new CharacterTokenizer([..."abcdefghijklmnopqrstuvw"]);
  const generator = await pipeline("text-generation", { model, tokenizer });
  setSeed(seed);
  const given = await generator(prompt, { ...options, eosTokenId: 22 });
  assertEquals(given, texts.map((generatedText) => ({ generatedText })), name);
}

const all = await devices();
const feature = readFixture<Case>("transformers/features");
const lengths = readFixture<PerplexityCase>("transformers/perplexity");
const pipelines = readFixture<PipelineCase>("transformers/pipeline");
const generations = readFixture<GenerationCase>("transformers/generation");
for (const on of all) {
  for (const [number, { name }] of feature.cases.entries()) {
    Deno.test(`features as in transformers, ${name} (${on.name})`, () => checkFeatures(on, feature, number));
  }
  for (const [number, { name }] of lengths.cases.entries()) {
    Deno.test(`perplexity as on transformers' page, ${name} (${on.name})`, () => checkPerplexity(on, lengths, number));
  }
  for (const [number, { name }] of pipelines.cases.entries()) {
    Deno.test(`pipeline as in transformers, ${name} (${on.name})`, () => checkPipeline(on, pipelines, number));
  }
  for (const [number, { name }] of generations.cases.entries()) {
    Deno.test(`generate as in transformers, ${name} (${on.name})`, () => checkGeneration(on, generations, number));
  }
}

/**
 * Checks the probabilities of a case by sampling, which chooses the token with the largest quotient p / q of
 * probability and noise. There is one row for each token. Its noise q equals the expected probabilities, so all
 * quotients are equal, except that its own token's noise is lower by a relative `bit`. So the own token is chosen if no
 * probability is wrong by more than that. A token that the processors exclude has a tiny noise in its own row and must
 * not be chosen.
 */
async function checkProcessors({ device, name: on }: TestDevice, fixture: Fixture<ProcessorCase>, number: number) {
  const { name, prompt, options } = fixture.cases[number], { values: scores } = fixture.get(`${number}.scores`);
  const { values: logits } = fixture.get(`${number}.logits`), tokens = [...fixture.get(`${number}.tokens`).values];
  const greatest = Math.max(...scores), bit = on === "reference" ? 1e-12 : on.startsWith("cpu") ? 2e-5 : 1e-4;
  const shares = Float64Array.from(scores, (score) => Math.exp(score - greatest));
  const rows = Array.from(shares, (_, own) => ({
    logits,
    tokens,
    prompt,
    ...options,
    noise: shares.map((share, i) => share < 1e-30 ? (i === own ? 1e-30 : 1) : i === own ? share * (1 - bit) : share),
  }));
  const { ids } = await chosen(device, rows);
  ids.forEach((id, own) => {
    if (shares[own] > 1e-30) assertEquals(id, own, `${name}: token ${own}, ${scores[own]}`);
    else if (scores[own] === -Infinity) {
      assert(shares[id] > 0, `${name}: ${id}, ${scores[id]}, where ${own} is ${scores[own]}`);
    }
  });
}

const processors = readFixture<ProcessorCase>("transformers/processors");
for (const [number, { name }] of processors.cases.entries()) {
  for (const on of all) {
    Deno.test(`logits processors as in transformers, ${name} (${on.name})`, () =>
      checkProcessors(on, processors, number));
  }
}
