import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { sampleFlags } from "../../src/cli/sample_flags.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import type { Device } from "../../src/engine/device.ts";
import { ConfigError, DataError, DeviceError } from "../../src/errors.ts";
import { tablesOf } from "../../kernels/choose/record.ts";
import { type SamplingOptions, samplingRules } from "../../kernels/choose/rules.ts";
import { layOutWeights } from "../../src/nn/linear.ts";
import { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { generate, type GenerateOptions, generateSequences } from "../../src/generate/generate.ts";
import { openDevice } from "../testing.ts";

const V = 11, BLOCK = 8;

/** A model whose weights are large enough to prefer some tokens clearly. */
function makeModel(device: Device): GPT {
  const config = { vocabSize: V, blockSize: BLOCK, nLayer: 2, nHead: 2, nEmbd: 8, dropout: 0.5, bias: true };
  const model = new GPT(config, { device, seed: 1 }), generator = new RandomGenerator(2);
  for (const weight of model.parameters()) {
    const values = new Float32Array(weight.size);
    generator.normal(values, 0, 0.5);
    device.write(weight.storage, values);
  }
  layOutWeights(model); // makes the copies of weights that the first generation would make
  return model;
}

async function withModel(name: string, body: (model: GPT) => Promise<void>): Promise<void> {
  const device = await openDevice(name, { threads: 1 });
  try {
    await body(makeModel(device));
  } finally {
    device.close();
  }
}

const tokens = (model: GPT, prompt: number[], options: GenerateOptions) =>
  Array.fromAsync(generate(model, prompt, options));

/** The logits for the next token. */
async function logitsOf(model: GPT, seen: number[]): Promise<number[]> {
  const ids = model.device.tensor(seen, [1, seen.length], { dtype: "i32" });
  const { logits } = noGrad(() => model.forward(ids)), values = [...await logits.data()];
  for (const tensor of [ids, logits]) tensor.dispose();
  return values;
}

/** nanoGPT's generate in f64: a whole forward pass for each token, top-k by sorting, softmax, argmax of p / q. */
async function spelledOut(
  model: GPT,
  prompt: number[],
  options: GenerateOptions & { maxNewTokens: number; seed: number },
): Promise<number[]> {
  const { maxNewTokens, temperature = 1, topK = V, seed } = options;
  const generator = new RandomGenerator(seed), all = [...prompt], noise = new Float32Array(V);
  model.eval();
  for (let i = 0; i < maxNewTokens; i++) {
    const scaled = (await logitsOf(model, all.slice(-BLOCK))).map((logit) => logit / temperature);
    const least = scaled.toSorted((a, b) => b - a)[Math.min(topK, V) - 1];
    const shares = scaled.map((logit) => logit < least ? 0 : Math.exp(logit));
    const sum = shares.reduce((a, b) => a + b);
    generator.exponential(noise);
    const scores = shares.map((share, id) => share / sum / noise[id]);
    all.push(scores.indexOf(Math.max(...scores)));
  }
  return all.slice(prompt.length);
}

for (const name of ["reference", "cpu"]) {
  Deno.test(`sampler: nanoGPT's generate gives the same tokens, with the cache and past the block size (${name})`, () =>
    withModel(name, async (model) => {
      const long = Array.from({ length: 20 }, (_, i) => i % V);
      for (
        const [prompt, options] of [
          [[3], { maxNewTokens: 30, seed: 42 }], // from one token to a text longer than the block size
          [[1, 2, 3], { maxNewTokens: 30, seed: 7, temperature: 0.8, topK: 3 }],
          [long.slice(0, BLOCK), { maxNewTokens: 10, seed: 7, temperature: 2, topK: 200 }], // full from the start
          [long, { maxNewTokens: 10, seed: 1337 }], // longer than the block size
        ] as const
      ) {
        assertEquals(await tokens(model, [...prompt], options), await spelledOut(model, [...prompt], options));
      }
    }));
}

Deno.test("sampler: a generator draws one sample after the other, and a seed makes a new generator", () =>
  withModel("cpu", async (model) => {
    const options = { maxNewTokens: 12 }, generator = new RandomGenerator(42);
    const first = await tokens(model, [0], { ...options, generator });
    assertEquals(first, await tokens(model, [0], { ...options, seed: 42 }));
    const second = await tokens(model, [0], { ...options, generator });
    assertNotEquals(second, first);
    const skipped = new RandomGenerator(42);
    skipped.exponential(new Float32Array(12 * V)); // V numbers a token
    assertEquals(await tokens(model, [0], { ...options, generator: skipped }), second);
    assertEquals(await tokens(model, [0], options), await tokens(model, [0], { ...options, seed: 1337 }));
  }));

Deno.test("sampler: temperature 0 and topK 1 take the most likely token, and temperature 0 draws no noise", () =>
  withModel("cpu", async (model) => {
    const generator = new RandomGenerator(5), before = generator.getState();
    const greedy = await tokens(model, [4], { maxNewTokens: 20, temperature: 0, generator });
    assertEquals(generator.getState(), before);
    assertEquals(greedy, await tokens(model, [4], { maxNewTokens: 20, topK: 1, seed: 9 }));
    assertEquals(greedy, await tokens(model, [4], { maxNewTokens: 20, temperature: 1e-6, seed: 9 }));
  }));

Deno.test("sampler: generation ends at a signal and when its reader leaves the loop, and frees its memory", () =>
  withModel("cpu", async (model) => {
    const before = model.device.memory(), controller = new AbortController(), seen: number[] = [];
    for await (const token of generate(model, [0], { maxNewTokens: 1000, signal: controller.signal })) {
      seen.push(token);
      if (seen.length === 3) controller.abort();
    }
    assertEquals(seen.length, 3);
    for await (const _ of generate(model, [0], { maxNewTokens: 1000 })) break;
    assertEquals(await tokens(model, [0], { maxNewTokens: 0 }), []);
    const { tensors, bytes } = model.device.memory();
    assertEquals({ tensors, bytes }, { tensors: before.tensors, bytes: before.bytes });
  }));

Deno.test("sampler: dropout is off during generation, and on again for training", () =>
  withModel("cpu", async (model) => {
    model.train();
    const passes = model.noise.passes, options = { maxNewTokens: 5, seed: 1 };
    const training = await tokens(model, [0], options);
    assert(model.training && model.transformer.drop.training);
    assertEquals(model.noise.passes, passes);
    model.eval();
    assertEquals(await tokens(model, [0], options), training);
    assert(!model.training);
  }));

Deno.test("sampler: options out of range are refused", () =>
  withModel("cpu", async (model) => {
    const cases: [number[], Partial<GenerateOptions>, string][] = [
      [[], {}, "the prompt is empty"],
      [[0, V], {}, "the prompt has token 11, and the vocabulary ends at 10"],
      [[-1], {}, "the prompt has token -1"],
      [[0.5], {}, "the prompt has token 0.5"],
      [[0], { topK: -1 }, "topK is -1; expected a whole number, 0 or more"],
      [[0], { topK: 1.5 }, "topK is 1.5"],
      [[0], { temperature: -1 }, "temperature is -1; expected a number, 0 or more"],
      [[0], { temperature: NaN }, "temperature is NaN"],
      [[0], { temperature: Infinity }, "temperature is Infinity"],
      [[0], { maxNewTokens: -1 }, "maxNewTokens is -1"],
    ];
    for (const [prompt, options, message] of cases) {
      await assertRejects(() => tokens(model, prompt, { maxNewTokens: 1, ...options }), ConfigError, message);
    }
  }));

/** A value for each rule that has an effect. If a new rule has no value here, its type is an error. */
const askedFor: Required<SamplingOptions> = {
  logitBias: { 2: 3 },
  repetitionPenalty: 1.7,
  presencePenalty: 1.5,
  frequencyPenalty: 0.9,
  temperature: 0.5,
  topK: 2,
  topP: 0.6,
  minP: 0.4,
};

Deno.test("sampler: every rule of the table is applied, and has one flag", async () => {
  for (const [option, value] of Object.entries(askedFor)) {
    await withModel("cpu", async (model) => {
      model.eval();
      const options = { maxNewTokens: 60, seed: 3, [option]: value },
        expected: number[] = [],
        generator = new RandomGenerator(3);
      const { apply, neutral } = samplingRules[option as keyof SamplingOptions];
      const noise = new Float32Array(V), seen = [1];
      while (expected.length < 60) {
        const scores = new Float64Array(await logitsOf(model, seen.slice(-BLOCK)));
        const tables = tablesOf({ [option]: value }, { tokens: seen, prompt: 1 }, V);
        apply(scores, Number(value), { bias: tables.subarray(0, V), seen: tables.subarray(V) });
        generator.exponential(noise);
        const shares = [...scores].map((score, i) => Math.exp(score) / noise[i]);
        expected.push(shares.indexOf(Math.max(...shares)));
        seen.push(expected.at(-1)!);
      }
      assertEquals(await tokens(model, [1], options), expected, option);
      const without = await tokens(model, [1], { ...options, [option]: neutral });
      assert(without.join() !== expected.join(), `${option} changes nothing here`);
    });
    const flag = option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    assertEquals(flag in sampleFlags, option !== "logitBias", flag);
  }
  assertEquals(Object.keys(samplingRules), Object.keys(askedFor));
});

Deno.test("sampler: a row's Philox stream depends only on its seed and the number of the token", () =>
  withModel("cpu", async (model) => {
    const options = { maxNewTokens: 20, draws: "philox", seed: 5, topP: 0.95 } as const;
    const text = await tokens(model, [3], options);
    assertEquals(await tokens(model, [3, ...text.slice(0, 7)], { ...options, maxNewTokens: 13 }), text.slice(7));
    assertNotEquals(await tokens(model, [3], { ...options, seed: 6 }), text);
    assertNotEquals(await tokens(model, [3], { ...options, draws: "multinomial" }), text);
    const sequences: number[][] = [[], []];
    for await (const { sequence, id } of generateSequences(model, [3], { ...options, numReturnSequences: 2 })) {
      sequences[sequence].push(id);
    }
    assertEquals(sequences, [text, await tokens(model, [3], { ...options, seed: 6 })]);
    for (
      const [wrong, message] of [
        [{ draws: "torch" as "philox" }, "draws is torch; expected multinomial or philox"],
        [{ generator: new RandomGenerator(1) }, "draws is philox, which takes a seed"],
      ] as const
    ) await assertRejects(() => tokens(model, [3], { ...options, ...wrong }), ConfigError, message);
  }));

for (const name of ["reference", "cpu"]) {
  Deno.test(`sampler: logits that are not numbers are an error (${name})`, () =>
    withModel(name, async (model) => {
      const weight = [...model.parameters()][0], values = await weight.data();
      for (const wrong of [NaN, Infinity]) {
        model.device.write(weight.storage, values.map((value, i) => i === 1 ? wrong : value));
        for (const options of [{}, { temperature: 0 }, { topK: 2 }, { topP: 0.9 }, { logprobs: true }]) {
          const given = { maxNewTokens: 3, ...options };
          await assertRejects(() => tokens(model, [0], given), DataError, "its weights are damaged");
        }
      }
      model.device.write(weight.storage, values);
    }));
}

Deno.test("sampler: topK 0 means all tokens, and a temperature too small for f32 means 0", () =>
  withModel("cpu", async (model) => {
    const options = { maxNewTokens: 20, seed: 9 };
    assertEquals(await tokens(model, [4], { ...options, topK: 0 }), await tokens(model, [4], options));
    const greedy = await tokens(model, [4], { ...options, temperature: 0 });
    assertEquals(await tokens(model, [4], { ...options, temperature: 1e-39 }), greedy);
  }));

Deno.test("sampler: after an error, all memory is freed and the model is in its previous mode", async () => {
  const device = await openDevice("cpu", { threads: 1 });
  const model = new GPT({ vocabSize: V, blockSize: BLOCK, nLayer: 2, nHead: 2, nEmbd: 8, dropout: 0.2 }, { device });
  const before = device.memory(), allocate = device.allocate;
  for (let fits = 0;; fits++) {
    let left = fits;
    device.allocate = (...args: Parameters<typeof allocate>) => {
      if (left-- === 0) throw new DeviceError("no room");
      return allocate.apply(device, args);
    };
    const error = await tokens(model, [1, 2], { maxNewTokens: BLOCK }).then(() => undefined, (error) => error);
    assertEquals(device.memory().tensors, before.tensors, `with room for ${fits}`);
    if (left >= 0) break;
    if (!error) continue; // only a copy of a weight did not fit, and generation works without it
    assert(error instanceof DeviceError && error.message.includes("no room"), `${fits}: ${error}`);
    assert(fits < 1000);
  }
  device.allocate = allocate;
  assert(model.training);
  const forward = model.forward;
  model.forward = () => {
    throw new DeviceError("lost");
  };
  await assertRejects(() => tokens(model, [1], { maxNewTokens: 1 }), DeviceError, "lost");
  model.forward = forward;
  assert(model.training);
  assertEquals(device.memory().tensors, before.tensors);
  device.close();
});
