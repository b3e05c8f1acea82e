/** Generation: ends, batches, sliding past the block size, and errors. Comparisons with transformers are in golden/. */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { noGrad } from "../../src/engine/autograd.ts";
import type { Device } from "../../src/engine/device.ts";
import { ConfigError, DataError } from "../../src/errors.ts";
import type { SequencesOptions } from "../../src/generate/options.ts";
import { layOutWeights } from "../../src/nn/linear.ts";
import { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { generate, type GeneratedToken, generateSequences } from "../../src/generate/generate.ts";
import { StopStrings } from "../../src/generate/stopping.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { openDevice } from "../testing.ts";

const V = 11, BLOCK = 8, tokenizer = new CharacterTokenizer([..."abcdefghijk"]);

/** A model whose weights are large enough to prefer some tokens clearly. */
function makeModel(device: Device): GPT {
  const config = { vocabSize: V, blockSize: BLOCK, nLayer: 2, nHead: 2, nEmbd: 8 };
  const model = new GPT(config, { device, seed: 1 }), generator = new RandomGenerator(2);
  for (const weight of model.parameters()) {
    const values = new Float32Array(weight.size);
    generator.normal(values, 0, 0.5);
    device.write(weight.storage, values);
  }
  layOutWeights(model); // makes the copies of weights that the first generation would make
  return model.eval();
}

/** Runs `body` with a model, and checks that all memory is freed. */
async function withModel(name: string, body: (model: GPT) => Promise<void>): Promise<void> {
  const device = await openDevice(name, { threads: 1 });
  try {
    const model = makeModel(device), { tensors, bytes } = device.memory();
    await body(model);
    layOutWeights(model); // writing weights disposed of the copies
    const after = device.memory();
    assertEquals([after.tensors, after.bytes], [tensors, bytes]);
  } finally {
    device.close();
  }
}

const all = (model: GPT, prompt: number[], options: SequencesOptions) =>
  Array.fromAsync(generateSequences(model, prompt, options));
const idsOf = (tokens: GeneratedToken[], sequence = 0) =>
  tokens.filter((token) => token.sequence === sequence).map(({ id }) => id);
const textOf = (tokens: GeneratedToken[]) => tokens.map(({ text }) => text).join("");

async function logitsOf(model: GPT, seen: number[]): Promise<number[]> {
  const ids = model.device.tensor(seen, [1, seen.length], { dtype: "i32" });
  const { logits } = noGrad(() => model.forward(ids)), values = [...await logits.data()];
  ids.dispose();
  logits.dispose();
  return values;
}

for (const name of ["reference", "cpu"]) {
  Deno.test(`generation: sliding restarts with the later half of the window (${name})`, () =>
    withModel(name, async (model) => {
      for (
        const prompt of [
          [3],
          [1, 2, 3, 4, 5],
          [1, 2, 3, 4, 5, 6, 7, 8],
          Array.from({ length: 20 }, (_, i) => i % V),
        ]
      ) {
        // The expected tokens, step by step: a window grows to the block size; with the next token, only its last half
        // stays.
        const tokens = [...prompt], expected: number[] = [];
        let window = prompt.slice(-BLOCK);
        for (let i = 0; i < 25; i++) {
          const logits = await logitsOf(model, window), id = logits.indexOf(Math.max(...logits));
          expected.push(id);
          tokens.push(id);
          window = window.length === BLOCK ? tokens.slice(-BLOCK / 2) : [...window, id];
        }
        const options = { maxNewTokens: 25, temperature: 0, overflow: "slide" } as const;
        assertEquals(idsOf(await all(model, prompt, options)), expected);
        assertEquals(idsOf(await all(model, prompt, { ...options, logprobs: true })), expected); // log-probabilities do not change the tokens
      }
    }));

  Deno.test(`generation: a batch gives the tokens of single texts, with and without log-probabilities, past the block size (${name})`, () =>
    withModel(name, async (model) => {
      for (const overflow of ["crop", "slide"] as const) {
        const options = { maxNewTokens: 20, temperature: 0.8, topK: 6, seed: 3, overflow, numReturnSequences: 3 };
        const device = await all(model, [1, 2], options),
          host = await all(model, [1, 2], { ...options, logprobs: true });
        assertEquals(device.map(({ id }) => id), host.map(({ id }) => id));
        assertEquals(device.map(({ sequence }) => sequence), Array.from({ length: 60 }, (_, i) => i % 3));
        assert(idsOf(device, 0).join() !== idsOf(device, 1).join());
        const least = idsOf(await all(model, [1, 2], { ...options, temperature: 1e-300, logprobs: true }));
        const greedy = { ...options, temperature: 0 }, together = await all(model, [1, 2], greedy);
        const alone = idsOf(await all(model, [1, 2], { ...greedy, numReturnSequences: 1 }));
        assertEquals(least, alone);
        for (const sequence of [0, 1, 2]) assertEquals(idsOf(together, sequence), alone);
      }
    }));
}

Deno.test("generation: log-probabilities are the model's own, independent of other options", () =>
  withModel("reference", async (model) => {
    const options = { maxNewTokens: 5, temperature: 0.5, topP: 0.5, repetitionPenalty: 2, topLogprobs: 4, seed: 8 };
    const seen = [4, 7];
    for (const { id, logprob, topLogprobs } of await all(model, seen, options)) {
      const logits = await logitsOf(model, seen), log = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
      assertAlmostEquals(logprob!, logits[id] - log, 1e-12);
      const order = logits.map((_, id) => id).sort((a, b) => logits[b] - logits[a]).slice(0, 4);
      assertEquals(topLogprobs!.map(({ id }) => id), order);
      topLogprobs!.forEach(({ id, logprob }) => assertAlmostEquals(logprob, logits[id] - log, 1e-12));
      seen.push(id);
    }
    assertEquals((await all(model, seen.slice(0, 2), { ...options, topLogprobs: 0 }))[0].topLogprobs, []);
  }));

Deno.test("generation: a text ends before a stop string, which need not end at a token's border", () =>
  withModel("cpu", async (model) => {
    const options = { maxNewTokens: 30, seed: 4, tokenizer },
      free = await all(model, [0], options),
      text = textOf(free);
    assertEquals(text, tokenizer.decode(free.map(({ id }) => id)));
    assertEquals(free.at(-1)!.finishReason, "length");
    assert(free.slice(0, -1).every(({ finishReason }) => finishReason === undefined));
    for (const stop of [text.slice(10, 13), text.slice(0, 1), text.slice(27)]) {
      const end = text.indexOf(stop), stopped = await all(model, [0], { ...options, stopStrings: ["zz", stop] });
      assertEquals(textOf(stopped), text.slice(0, end));
      assertEquals(stopped.length, end + stop.length); // the last token completes the string
      assertEquals(stopped.at(-1)!.finishReason, "stop");
    }
    const never = await all(model, [0], { ...options, stopStrings: text.slice(28) + "zz" });
    assertEquals(textOf(never), text); // text that was held back is returned at the end
  }));

Deno.test("generation: stop strings are found in pieces of any length", () => {
  const random = new RandomGenerator(1);
  const string = (length: number) => Array.from({ length }, () => "ab"[random.randint(2)]).join("");
  for (let i = 0; i < 500; i++) {
    const text = string(20), stops = Array.from({ length: 1 + random.randint(3) }, () => string(1 + random.randint(5)));
    let end = 0; // length of the shortest prefix of the text that has a stop string
    while (end <= text.length && !stops.some((stop) => text.slice(0, end).includes(stop))) end++;
    const places = stops.map((stop) => text.slice(0, end).indexOf(stop)).filter((at) => at >= 0);
    const expected = end > text.length ? text : text.slice(0, Math.min(...places));
    const strings = new StopStrings(stops);
    let given = "";
    for (let at = 0; at < text.length;) {
      const length = 1 + random.randint(6);
      given += strings.push(text.slice(at, at + length));
      assert(expected.startsWith(given), `${text}, ${stops}: ${given} came, and ${expected} was right`);
      at += length;
    }
    assertEquals(given + strings.end(), expected, `${text}, ${stops}`);
    assertEquals(strings.found, end <= text.length);
  }
});

Deno.test("generation: an end token is yielded last without text, and the generator's later draws are taken back", () =>
  withModel("cpu", async (model) => {
    const options = { maxNewTokens: 30, tokenizer }, ids = idsOf(await all(model, [0], { ...options, seed: 4 }));
    const eosTokenId = ids[12], length = ids.indexOf(eosTokenId) + 1, generator = new RandomGenerator(4);
    const stopped = await all(model, [0], { ...options, eosTokenId, generator });
    assertEquals(idsOf(stopped), ids.slice(0, length));
    assertEquals(stopped.at(-1)!.finishReason, "stop");
    assertEquals(textOf(stopped), tokenizer.decode(ids.slice(0, length - 1)));
    const other = new RandomGenerator(4);
    for (let i = 0; i < length; i++) other.exponential(new Float32Array(V));
    assertEquals(generator.getState(), other.getState());
  }));

Deno.test("generation: a signal, or leaving the loop, ends a batch", () =>
  withModel("cpu", async (model) => {
    for (const topP of [1, 0.9]) {
      const controller = new AbortController(), seen: number[] = [], numReturnSequences = 3;
      const options = { maxNewTokens: 1000, numReturnSequences, topP };
      for await (const { sequence } of generateSequences(model, [0], { ...options, signal: controller.signal })) {
        seen.push(sequence);
        if (seen.length === 4) controller.abort();
      }
      assertEquals(seen, [0, 1, 2, 0]);
      for await (const _ of generateSequences(model, [0], options)) break;
      assertEquals(await all(model, [0], { ...options, maxNewTokens: 0 }), []);
    }
  }));

/** χ² = Σ (seen − expected)² / expected. Its mean is the number of kinds − 1, and its deviation √(2 · mean). */
async function chiSquare(model: GPT, options: SequencesOptions, shares: number[], rounds: number): Promise<number> {
  const counts = new Array<number>(V).fill(0), generator = new RandomGenerator(5);
  for (let i = 0; i < rounds; i++) {
    for (const { id } of await all(model, [6], { ...options, generator })) counts[id]++;
  }
  const total = rounds * options.numReturnSequences!;
  return shares.reduce((sum, share, id) => {
    if (share > 0) return sum + (counts[id] - total * share) ** 2 / (total * share);
    assertEquals(counts[id], 0);
    return sum;
  }, 0);
}

Deno.test("generation: tokens are drawn with their probabilities", () =>
  withModel("cpu", async (model) => {
    const logits = await logitsOf(model, [6]), rounds = 20, batch = { maxNewTokens: 1, numReturnSequences: 500 };
    const shares = (scores: number[]) => {
      const exps = scores.map((score) => Math.exp(score)), sum = exps.reduce((a, b) => a + b);
      return exps.map((exp) => exp / sum);
    };
    const sorted = shares(logits).toSorted((a, b) => b - a), least = sorted[4];
    const nucleus = sorted.slice(0, 5).reduce((a, b) => a + b) - least / 2; // a topP for which five tokens are needed
    const cut = shares(logits.map((x, id) => shares(logits)[id] < least ? -Infinity : x));
    const cases: [SequencesOptions, number[]][] = [
      [{ ...batch }, shares(logits)],
      [{ ...batch, temperature: 2 }, shares(logits.map((x) => x / 2))],
      [{ ...batch, topK: 5 }, cut],
      [{ ...batch, topP: nucleus }, cut],
      [{ ...batch, minP: least / sorted[0] * 0.999 }, cut],
      [{ ...batch, logitBias: { 3: 2, 4: -1 } }, shares(logits.map((x, id) => x + (id === 3 ? 2 : id === 4 ? -1 : 0)))],
      [{ ...batch, presencePenalty: 1 }, shares(logits)], // no effect, because no token was generated yet
    ];
    for (const [options, expected] of cases) {
      const kinds = expected.filter((share) => share > 0).length - 1,
        seen = await chiSquare(model, options, expected, rounds);
      assert(seen < kinds + 4 * Math.sqrt(2 * kinds), `${JSON.stringify(options)}: ${seen} for ${kinds}`);
    }
    // Shows that the test can fail: it notices a temperature of 1.1 instead of 1.
    assert(await chiSquare(model, batch, shares(logits.map((x) => x / 1.1)), rounds) > 10 + 4 * Math.sqrt(20));
  }));

Deno.test("generation: a list of prompts gives the tokens of separate calls, and leaves the generator in the same state", () =>
  withModel("reference", async (model) => {
    const prompts = [[1, 2, 3, 4, 5, 6], [7], [1, 2, 3, 4, 5, 6], [1, 2, 3, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]];
    const options = { maxNewTokens: 12, temperature: 1.2, numReturnSequences: 2, tokenizer };
    const cases: [string, Partial<SequencesOptions>, boolean][] = [
      ["a generator, and no end before the length", {}, true],
      ["a generator, and ends", { eosTokenId: [3, 5] }, false],
      ["a generator, and stop strings", { stopStrings: "f" }, false],
      ["a seed, and ends", { seed: 9, eosTokenId: 8 }, true],
      ["greedy, with ends", { temperature: 0, eosTokenId: 3, numReturnSequences: 1 }, true],
      ["log-probabilities", { topP: 0.8, topLogprobs: 2, overflow: "slide" }, true],
    ];
    for (const [what, given, together] of cases) {
      const [one, other] = [new RandomGenerator(3), new RandomGenerator(3)], own = "seed" in given;
      const expected: GeneratedToken[] = [], all = { ...options, ...given }, { numReturnSequences: count } = all;
      for (const [i, prompt] of prompts.entries()) {
        const tokens = await Array.fromAsync(
          generateSequences(model, prompt, { ...all, generator: own ? undefined : one }),
        );
        expected.push(...tokens.map((token) => ({ ...token, sequence: i * count + token.sequence })));
      }
      let most = 0;
      const { forward } = model;
      model.forward = ((...args: Parameters<typeof forward>) => {
        most = Math.max(most, args[2]?.places ? args[2].of?.size ?? args[0].shape[0] : 0);
        return forward.apply(model, args);
      }) as typeof forward;
      const list = generateSequences(model, prompts, { ...all, generator: own ? undefined : other });
      assertEquals(await Array.fromAsync(list), expected, what);
      model.forward = forward;
      assertEquals(most > count, together, `${what}: ${most} rows in a step`);
      assertEquals(other.getState(), one.getState(), what);
    }
    const ids = await Array.fromAsync(
      generate(model, prompts.slice(0, 2), { maxNewTokens: 2 }),
      ({ sequence }) => sequence,
    );
    assertEquals(ids, [0, 0, 1, 1]);
    await assertRejects(
      () => Array.fromAsync(generate(model, [[1], []], { maxNewTokens: 2 })),
      ConfigError,
      "prompt is empty",
    );
    await assertRejects(
      () => Array.fromAsync(generate(model, [], { maxNewTokens: 2 })),
      ConfigError,
      "prompt is empty",
    );
  }));

Deno.test("generation: options that are not valid are refused", () =>
  withModel("cpu", async (model) => {
    const cases: [Partial<SequencesOptions>, string][] = [
      [{ maxNewTokens: undefined }, "maxNewTokens or maxLength is missing"],
      [{ maxLength: 5 }, "maxNewTokens and maxLength are both given"],
      [{ maxNewTokens: undefined, maxLength: 2 }, "maxLength is 2, which includes the prompt's 2 tokens"],
      [{ maxNewTokens: undefined, maxLength: 0 }, "maxLength is 0; expected a whole number above 0"],
      [{ maxNewTokens: 1e20 }, "maxNewTokens is 100000000000000000000"],
      [{ topP: NaN }, "topP is NaN; expected a number from 0 to 1"],
      [{ topP: 1.5 }, "topP is 1.5"],
      [{ minP: -0.1 }, "minP is -0.1; expected a number from 0 to 1"],
      [{ repetitionPenalty: 0 }, "repetitionPenalty is 0; expected a number above 0"],
      [{ repetitionPenalty: Infinity }, "repetitionPenalty is Infinity"],
      [{ frequencyPenalty: NaN }, "frequencyPenalty is NaN; expected a number"],
      [{ presencePenalty: Infinity }, "presencePenalty is Infinity"],
      [{ seed: NaN }, "seed is NaN; expected a whole number"],
      [{ numReturnSequences: 0 }, "numReturnSequences is 0; expected a whole number above 0"],
      [{ numReturnSequences: 1.5 }, "numReturnSequences is 1.5"],
      [{ topLogprobs: -1 }, "topLogprobs is -1; expected a whole number, 0 or more"],
      [{ topLogprobs: 12 }, "topLogprobs is 12, and the vocabulary has 11 tokens"],
      [{ eosTokenId: 11 }, "eosTokenId is 11, and the vocabulary ends at 10"],
      [{ eosTokenId: [1, -1] }, "eosTokenId is -1"],
      [{ logitBias: { 11: 1 } }, "logitBias has token 11, and the vocabulary ends at 10"],
      [{ logitBias: { 3: NaN } }, "logitBias of token 3 is NaN; expected a number, or -Infinity"],
      [{ logitBias: { 3: Infinity } }, "logitBias of token 3 is Infinity"],
      [{ stopStrings: "x" }, "stopStrings is given without the option tokenizer"],
      [{ stopStrings: ["x", ""], tokenizer }, "a stop string is empty"],
      [{ overflow: "refuse", maxNewTokens: 7 }, "the prompt has 2 tokens; with 7 more"],
      [{ logitBias: Object.fromEntries(Array.from({ length: V }, (_, id) => [id, -Infinity])) }, "bans every token"],
    ];
    for (const [options, message] of cases) {
      await assertRejects(() => all(model, [0, 1], { maxNewTokens: 1, ...options }), ConfigError, message);
    }
    assertEquals((await all(model, [0, 1], { overflow: "refuse", maxNewTokens: 6 })).length, 6);
    assertEquals((await all(model, [0, 1], { maxLength: 5 })).length, 3);
    const weight = [...model.parameters()][0], values = await weight.data();
    model.device.write(weight.storage, values.map(() => NaN));
    await assertRejects(() => all(model, [0], { maxNewTokens: 1, topP: 0.9 }), DataError, "logits are not numbers");
    model.device.write(weight.storage, values);
  }));
