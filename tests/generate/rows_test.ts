/**
 * Many texts at once: other rows that join and leave do not change a row's tokens; also slots, prefixes, errors and
 * memory.
 */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { noGrad } from "../../src/engine/autograd.ts";
import type { Device } from "../../src/engine/device.ts";
import { ConfigError, DataError, DeviceError } from "../../src/errors.ts";
import { generateSequences } from "../../src/generate/generate.ts";
import type { Row, RowRequest, RowToken } from "../../src/generate/row.ts";
import { Rows } from "../../src/generate/rows.ts";
import { GPT } from "../../src/gpt.ts";
import type { CacheType } from "../../src/nn/cache.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { openDevice } from "../testing.ts";

const V = 23, BLOCK = 48, tokenizer = new CharacterTokenizer([..."abcdefghijklmnopqrstuvw"]);
const names = Deno.env.get("NANOGPT_TEST_DEVICES")?.split(",") ?? ["reference", "cpu"];

/** A model whose weights are large enough to prefer some tokens clearly. */
function makeModel(device: Device): GPT {
  const model = new GPT({ vocabSize: V, blockSize: BLOCK, nLayer: 2, nHead: 2, nEmbd: 24 }, { device, seed: 1 });
  const generator = new RandomGenerator(2);
  for (const weight of model.parameters()) {
    const values = new Float32Array(weight.size);
    generator.normal(values, 0, 0.35);
    device.write(weight.storage, values);
  }
  return model.eval();
}

/** Runs `body` with a model, and checks that all memory is freed. */
async function withModel(name: string, body: (model: GPT) => Promise<void>, threads = 1): Promise<void> {
  const device = await openDevice(name, { threads });
  try {
    const model = makeModel(device), lay = () => alone(model, { prompt: [0], maxNewTokens: 1 }); // makes copies of weights, which stay allocated
    await lay();
    const { tensors, bytes } = device.memory();
    await body(model);
    await lay();
    const after = device.memory();
    assertEquals([after.tensors, after.bytes], [tensors, bytes]);
  } finally {
    device.close();
  }
}

/** A random request for a seed: options of all kinds, and a prompt of random length. */
function request(seed: number): RowRequest {
  const random = new RandomGenerator(seed), pick = <T>(...of: T[]): T => of[random.randint(of.length)];
  return {
    prompt: Array.from({ length: 1 + random.randint(pick(4, 30, 60)) }, () => random.randint(V)),
    seed,
    maxNewTokens: 1 + random.randint(40),
    temperature: pick(0, 0.7, 1, 1.3),
    topK: pick(0, 0, 1, 5),
    topP: pick(undefined, undefined, undefined, 0.8),
    minP: pick(undefined, undefined, 0.05),
    repetitionPenalty: pick(undefined, undefined, undefined, 1.5),
    frequencyPenalty: pick(undefined, undefined, 0.3),
    logitBias: pick<RowRequest["logitBias"]>(undefined, undefined, { 3: 2, [V - 1]: -Infinity }),
    draws: pick("multinomial", "multinomial", "philox"),
    overflow: pick("crop", "slide"),
    eosTokenId: pick(undefined, 4),
    ...pick<Partial<RowRequest>>({}, {}, { logprobs: true }, { topLogprobs: 3 }, { stopStrings: "ab", tokenizer }),
  };
}

const alone = (model: GPT, { prompt, ...options }: RowRequest, cache?: CacheType): Promise<RowToken[]> =>
  Array.fromAsync(generateSequences(model, prompt, { ...options, cache }), ({ sequence: _, ...token }) => token);

/** Compares tokens exactly, or with `exact` false (on a GPU) allows a small difference between log-probabilities. */
function assertSame(actual: RowToken[], expected: RowToken[], exact: boolean, what: string): void {
  if (exact) return assertEquals(actual, expected, what);
  assertEquals(
    actual.map(({ id, text, finishReason }) => [id, text, finishReason]),
    expected.map(({ id, text, finishReason }) => [id, text, finishReason]),
    what,
  );
  actual.forEach(({ logprob = 0 }, i) => assertAlmostEquals(logprob, expected[i].logprob ?? 0, 1e-4, what));
}

for (const name of names) {
  const ways: [cache: CacheType, threads: number][] = name === "cpu"
    ? [["f32", 1], ["f32", 2], ["f32", 3], ["f32", 4], ["bf16", 1], ["bf16", 3]]
    : [["f32", 1], ["bf16", 1]];
  for (const [cache, threads] of ways) {
    const count = name === "cpu" ? 64 : 24; // other devices are slow
    Deno.test(`rows: ${count} rows of all kinds that join and leave at any step have the tokens of single texts (${name}, threads: ${threads}, cache: ${cache})`, () =>
      withModel(name, async (model) => {
        const exact = !name.startsWith("webgpu"), random = new RandomGenerator(9);
        using rows = new Rows(model, { slots: 9, piece: 7, cache });
        const waiting = Array.from({ length: count }, (_, seed) => seed);
        const going = new Map<number, { row: Row; tokens: RowToken[]; leaves: number }>();
        const texts: [seed: number, tokens: RowToken[], whole: boolean][] = [];
        while (waiting.length > 0 || going.size > 0) {
          while (rows.free > 0 && waiting.length > 0 && random.randint(3) > 0) {
            const seed = waiting.pop()!, leaves = random.randint(4) === 0 ? random.randint(12) : Infinity;
            going.set(seed, { row: rows.add(request(seed)), tokens: [], leaves });
          }
          for (const [seed, { row, tokens, leaves }] of going) { // some rows take more tokens than other rows
            for (let asks = random.randint(3); asks > 0 && going.has(seed); asks--) {
              const { value } = await row.next();
              if (value) tokens.push(value);
              if (value && tokens.length < leaves) continue;
              row.abort();
              going.delete(seed);
              texts.push([seed, tokens, !value]);
            }
          }
        }
        assertEquals(rows.free, 9);
        for (const [seed, tokens, whole] of texts) {
          const expected = await alone(model, request(seed), cache);
          assertSame(tokens, whole ? expected : expected.slice(0, tokens.length), exact, `row ${seed}`);
        }
      }, threads));
  }
}

Deno.test("rows: on a device that is slow to read, one read serves several steps, and tokens after an end are discarded", () =>
  withModel("reference", async (model) => {
    const { device } = model,
      { read } = device,
      options = { maxNewTokens: 40, topP: 0.9, frequencyPenalty: 0.2, topLogprobs: 2 };
    const requests = [0, 1, 2].map((seed): RowRequest => ({ prompt: [seed], seed, ...options, eosTokenId: seed && 4 }));
    const expected = await Promise.all(requests.map((request) => alone(model, request)));
    let reads = 0;
    Object.assign(device, { readsAtOnce: false });
    device.read = (...args: Parameters<typeof read>) => (reads++, read.apply(device, args));
    using rows = new Rows(model, { slots: 3 });
    const texts = await Promise.all(requests.map((request) => Array.fromAsync(rows.add(request))));
    Object.assign(device, { readsAtOnce: true });
    device.read = read;
    assertEquals(texts, expected);
    assert(reads < 40, `${reads} readings, of ids and of log-probabilities`); // 80 with one read for each token
  }));

Deno.test("rows: concurrent readers get their texts at the speed of the steps", () =>
  withModel("reference", async (model) => {
    using rows = new Rows(model, { slots: 5 });
    const texts = await Promise.all([1, 2, 3, 4, 5].map((seed) => Array.fromAsync(rows.add(request(seed)))));
    for (const [i, text] of texts.entries()) assertEquals(text, await alone(model, request(i + 1)));
  }));

Deno.test("rows: a common prefix of prompts is processed once, also after rows have ended, but not after weights have changed", () =>
  withModel("reference", async (model) => {
    const shown: number[] = [], { forward } = model;
    model.forward = ((...args: Parameters<typeof forward>) => {
      if (args[2]?.places) shown.push(args[0].size);
      return forward.apply(model, args);
    }) as typeof forward;
    const prompt = Array.from({ length: 40 }, (_, i) => (i * i) % V), options = { maxNewTokens: 1, logprobs: true };
    const expected = async (prompt: number[]) => {
      const text = await alone(model, { prompt, ...options });
      shown.length = 0;
      return text;
    };
    const [whole, other] = [await expected(prompt), await expected([...prompt.slice(0, 30), 1, 2])];
    using rows = new Rows(model, { slots: 4 });
    const three = [0, 1, 2].map(() => rows.add({ prompt, ...options }));
    for (const row of three) assertEquals(await Array.fromAsync(row), whole);
    assertEquals(shown, [40, 2]); // one row processes its prompt; two rows copy from it all but their last token
    shown.length = 0;
    assertEquals(await Array.fromAsync(rows.add({ prompt: [...prompt.slice(0, 30), 1, 2], ...options })), other);
    assertEquals(shown, [2]); // the 30 tokens of the common prefix are in the slot already, or copied to it
    const going = rows.add({ prompt, maxNewTokens: 5 }); // generates while weights change: its keys and values are then old
    await going.next();
    const weight = model.transformer.ln_f.weight, before = await weight.data();
    model.device.write(weight.storage, before.map((value) => 2 * value));
    const changed = await expected(prompt);
    assertEquals(await Array.fromAsync(rows.add({ prompt, ...options })), changed);
    assertEquals(shown, [41]); // the whole prompt, and one token of the row that generates
    going.abort();
    model.device.write(weight.storage, before);
    model.forward = forward;
  }));

Deno.test("rows: a prompt's log-probabilities, in pieces of any size, and without generating a token", () =>
  withModel("reference", async (model) => {
    const prompt = Array.from({ length: 33 }, (_, i) => (i * 7 + i * i) % V);
    const ids = model.device.tensor(prompt, [1, 33], { dtype: "i32" });
    const logits = noGrad(() => model.forward(ids, ids)), values = await logits.logits.data();
    const expected = prompt.slice(1).map((id, t) => {
      const row = [...values.subarray(t * V, (t + 1) * V)],
        log = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      const order = row.map((_, id) => id).sort((a, b) => row[b] - row[a]);
      return { id, logprob: row[id] - log, order, greedy: order[0] === id, logs: row.map((x) => x - log) };
    });
    for (const tensor of [ids, logits.logits, logits.loss]) tensor.dispose();
    for (const [piece, maxNewTokens] of [[128, 0], [5, 3], [1, 0], [11, 1]]) {
      using rows = new Rows(model, { slots: 3, piece });
      rows.add({ prompt: [1], maxNewTokens: 40, seed: 1 }); // together with a row that generates
      const plain = rows.add({ prompt, maxNewTokens: 1 }); // its keys and values are not reused for the row with log-probabilities
      const row = rows.add({ prompt, maxNewTokens, promptLogprobs: 4, temperature: 0 });
      const scores = await row.promptLogprobs();
      assertEquals(scores.length, 32);
      for (const [t, { id, logprob, topLogprobs, greedy }] of scores.entries()) {
        assertEquals([id, greedy], [expected[t].id, expected[t].greedy]);
        assertAlmostEquals(logprob, expected[t].logprob, 1e-11);
        assertEquals(topLogprobs.map(({ id }) => id), expected[t].order.slice(0, 4));
        topLogprobs.forEach(({ id, logprob }) => assertAlmostEquals(logprob, expected[t].logs[id], 1e-11));
      }
      assertEquals((await Array.fromAsync(row)).length, maxNewTokens);
      plain.abort();
    }
    using rows = new Rows(model, { slots: 1 });
    assertEquals(await rows.add({ prompt: [3], maxNewTokens: 0, promptLogprobs: 0 }).promptLogprobs(), []);
    assertEquals(rows.free, 1);
  }));

Deno.test("rows: leaving the loop, an abort, a signal and an error each free the slot at once, and other rows go on", () =>
  withModel("cpu", async (model) => {
    using rows = new Rows(model, { slots: 4 });
    const other = rows.add({ prompt: [1, 2], maxNewTokens: 30, seed: 5 }), tokens: RowToken[] = [];
    const goOn = async () => tokens.push((await other.next()).value!);
    for await (const _ of rows.add({ prompt: [3], maxNewTokens: 20 })) break;
    assertEquals(rows.free, 3);
    await goOn();
    const aborted = rows.add({ prompt: [3], maxNewTokens: 20 });
    await aborted.next();
    aborted.abort();
    assertEquals(rows.free, 3);
    assertEquals(await aborted.next(), { value: undefined, done: true });
    const controller = new AbortController();
    const signalled = rows.add({ prompt: [3], maxNewTokens: 20, signal: controller.signal });
    await signalled.next();
    controller.abort();
    for (let i = 0; i < 4; i++) await goOn(); // several calls, because some tokens are already computed
    assertEquals(rows.free, 3);
    assertEquals(await Array.fromAsync(signalled), []);
    const logitBias = Object.fromEntries(Array.from({ length: V }, (_, id) => [id, -Infinity]));
    const banned = rows.add({ prompt: [3], maxNewTokens: 20, logitBias }); // the error ends only this row
    await assertRejects(() => banned.next(), ConfigError, "bans every token");
    assertEquals(rows.free, 3);
    tokens.push(...await Array.fromAsync(other));
    assertSame(tokens, await alone(model, { prompt: [1, 2], maxNewTokens: 30, seed: 5 }), true, "the other row");
    // An error of a step ends the rows of that step, but not rows that are added later.
    const { forward } = model,
      [a, b] = [rows.add({ prompt: [9, 8], maxNewTokens: 9 }), rows.add({ prompt: [5], maxNewTokens: 9 })];
    model.forward = () => {
      throw new DeviceError("lost");
    };
    await assertRejects(() => a.next(), DeviceError, "lost");
    await assertRejects(() => Array.fromAsync(b), DeviceError, "lost");
    model.forward = forward;
    assertEquals(rows.free, 4);
    assertEquals((await Array.fromAsync(rows.add({ prompt: [5], maxNewTokens: 9 }))).length, 9);
    const [weight] = model.parameters(), values = await weight.data();
    model.device.write(weight.storage, values.map(() => NaN));
    await assertRejects(() => rows.add({ prompt: [5], maxNewTokens: 9 }).next(), DataError, "its weights are damaged");
    model.device.write(weight.storage, values);
  }));

Deno.test("rows: the state of the caller's generator depends only on the tokens that were taken", () =>
  withModel("cpu", async (model) => {
    const generator = new RandomGenerator(4),
      state = (draws: number) => {
        const other = new RandomGenerator(4);
        other.exponential(new Float32Array(draws * V));
        return other.getState();
      };
    using rows = new Rows(model, { slots: 4 });
    const row = rows.add({ prompt: [1], maxNewTokens: 20, generator }),
      beside = rows.add({ prompt: [2], maxNewTokens: 20 });
    await row.next();
    for (let i = 0; i < 5; i++) await beside.next(); // computes the next tokens of `row`, which are not taken
    row.abort();
    assertEquals(generator.getState(), state(1));
    // Sequences share a generator. Their prompt is long enough to be copied, which makes the first sequence one step
    // ahead.
    const prompt = Array.from({ length: 30 }, (_, i) => i % V), shared = new RandomGenerator(4);
    const sequences = rows.addSequences({ prompt, maxNewTokens: 4, generator: shared, topLogprobs: 1 }, 3);
    const texts = await Promise.all(sequences.map((row) => Array.fromAsync(row)));
    assertEquals(shared.getState(), state(12));
    assert(new Set(texts.map((text) => text.map(({ id }) => id).join())).size > 1);
    const expected = await Array.fromAsync(
      generateSequences(model, prompt, { maxNewTokens: 4, seed: 4, numReturnSequences: 3 }),
    );
    for (const { sequence, id } of expected) assertEquals(texts[sequence].shift()!.id, id);
  }));

Deno.test("rows: a thousand rows through sixteen slots leave no memory allocated", () =>
  withModel("cpu", async (model) => {
    using rows = new Rows(model, { slots: 16 });
    const random = new RandomGenerator(1), going: Row[] = [];
    const used = () => [model.device.memory().tensors, model.device.memory().bytes];
    let memory: number[] = [];
    for (let number = 0; number < 1000; number++) {
      while (rows.free === 0) {
        const [row] = going.splice(random.randint(going.length), 1);
        if (random.randint(2)) row.abort();
        else for await (const _ of row);
      }
      const { prompt, maxNewTokens, ...options } = request(number);
      going.push(rows.add({ ...options, prompt: Array.from(prompt).slice(0, 9), maxNewTokens: 1 + maxNewTokens! % 6 }));
      if (number === 400) memory = used();
    }
    for (const row of going) row.abort();
    assertEquals(rows.free, 16);
    assertEquals(used(), memory);
  }));

Deno.test("rows: requests that are not valid are refused, and take no slot", () =>
  withModel("cpu", async (model) => {
    using rows = new Rows(model, { slots: 2 });
    const cases: [Partial<RowRequest>, string][] = [
      [{ prompt: [] }, "the prompt is empty"],
      [{ prompt: [V] }, `the prompt has token ${V}`],
      [{ temperature: -1 }, "temperature is -1"],
      [{ topP: 2 }, "topP is 2"],
      [{ maxNewTokens: undefined }, "maxNewTokens or maxLength is missing"],
      [{ prompt: new Array(BLOCK + 1).fill(0), overflow: "refuse" }, "it does not fit into the block size"],
      [
        { prompt: new Array(BLOCK + 1).fill(0), promptLogprobs: 1 },
        `the prompt has ${BLOCK + 1} tokens, and the block size is ${BLOCK}`,
      ],
      [{ promptLogprobs: -1 }, "promptLogprobs is -1; expected a whole number, 0 or more"],
      [{ promptLogprobs: V + 1 }, `promptLogprobs is ${V + 1}, and the vocabulary has ${V} tokens`],
    ];
    for (const [options, message] of cases) {
      assertThrows(() => rows.add({ prompt: [1], maxNewTokens: 1, ...options }), ConfigError, message);
    }
    assertEquals(rows.free, 2);
    const first = rows.add({ prompt: [1], maxNewTokens: 9 });
    await first.next();
    assertThrows(
      () => rows.addSequences({ prompt: [1], maxNewTokens: 1 }, 2),
      ConfigError,
      "only 1 slots are free of 2",
    );
    rows.add({ prompt: [1], maxNewTokens: 20 });
    assertThrows(
      () => rows.add({ prompt: [1], maxNewTokens: 1 }),
      ConfigError,
      "Rows: no slot is free of 2: 1 rows are generating, 1 wait for their first token; the next row ends after at most 8 more tokens",
    );
    for (
      const [options, message] of [
        [{ slots: 0 }, "slots is 0; expected a whole number above 0"],
        [{ slots: 1.5 }, "slots is 1.5"],
        [{ slots: 1, piece: 0 }, "piece is 0"],
        [{ slots: 1, cache: "f16" as CacheType }, "cache is f16; expected f32 or bf16"],
      ] as const
    ) assertThrows(() => new Rows(model, options), ConfigError, message);
    const large = new GPT({ vocabSize: 5, blockSize: 1024, nLayer: 1, nHead: 1, nEmbd: 64 }, { device: model.device });
    // The keys and values of a text take 2 · 1024 · 64 · 4 bytes, half a MiB. 8192 texts need 4 GiB, the whole memory.
    for (
      const [slots, cache, each, fit] of [
        [8192, "f32", "0.000488", /; 8[01]\d\d texts would fit, 16[0-3]\d\d with cache: "bf16"$/],
        [16384, "bf16", "0.000244", /; 16[0-3]\d\d texts would fit$/],
      ] as const
    ) {
      const { message } = assertThrows(
        () => new Rows(large, { slots, cache }),
        DeviceError,
        `Rows: keys and values of ${slots} texts in ${cache}, ${each} GiB each, takes 4 GiB`,
      ) as Error;
      assert(fit.test(message), message);
    }
    large.dispose();
  }));

Deno.test("rows: the memory for a row's options is counted when the row is added; if it does not fit, the row gets no slot", () =>
  withModel("cpu", async ({ device }) => {
    const sizes = { vocabSize: 4096, blockSize: 64, nLayer: 1, nHead: 1, nEmbd: 16 };
    using model = new GPT(sizes, { device }).eval();
    using rows = new Rows(model, { slots: 64 });
    const { capacity } = device, given = { prompt: [1, 2, 3], maxNewTokens: 2, temperature: 0 };
    const within = (mib: number, add: () => Row) => {
      const value = { ...capacity, all: device.memory().bytes + mib * 2 ** 20 };
      Object.defineProperty(device, "capacity", { configurable: true, value });
      try {
        return add();
      } finally {
        delete (device as { capacity?: unknown }).capacity; // restores the getter of the class
      }
    };
    // The keys and values of 64 texts take 2 · 64 · 16 · 4 bytes each, half a MiB together.
    const cases = [
      [{ frequencyPenalty: 1 }, "tables of bias and penalties 0.00195 GiB, keys and values 0.000488 GiB", 2.5], // 64 · 2 · 4096
      [{ logitBias: { 3: 1 } }, "tables of bias and penalties 0.00195 GiB", 2.5],
      [{ topLogprobs: 4095 }, "log-probabilities 0.00195 GiB", 2.5], // 64 · 4096 · 2
      [{ promptLogprobs: 0, prompt: new Array(64).fill(5) }, "the prompt's logits 0.000962 GiB", 1.5], // 63 · (4096 + 4)
    ] as const;
    for (const [asked, what, mib] of cases) {
      const add = () => rows.add({ ...given, ...asked });
      const { message } = assertThrows(() => within(mib - 0.1, add), DeviceError) as Error;
      assert(message.startsWith("Rows: the memory for this row's options, with 64 slots, takes 0.00"), message);
      assert(message.includes(what), message);
      assertEquals(rows.free, 64);
      within(mib, add).abort();
    }
    await within(2.5, () => rows.add({ ...given, frequencyPenalty: 1 })).next();
    within(0, () => rows.add({ ...given, frequencyPenalty: 2 })); // the tables are already allocated
  }));

for (const mode of ["train", "eval"] as const) { // passes turn dropout off, and on again
  Deno.test(`rows: after each step of an optimizer, rows have the tokens that the current weights give alone (${mode})`, async () => {
    using device = await openDevice("cpu", { threads: 2 });
    const model = makeModel(device)[mode](), prompt = Array.from({ length: 20 }, (_, i) => (i * 7) % V);
    const tokens = device.tensor(Int32Array.from({ length: 60 }, (_, i) => (i * i) % V), [4, 15]);
    using optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 0.01, betas: [0.9, 0.99] });
    const update = () => {
      using _ = device.scope();
      model.forward(tokens, tokens).loss.backward();
      optimizer.step();
      optimizer.zeroGrad();
    };
    const requests = [prompt, prompt, [1]].map((prompt, seed): RowRequest => ({
      ...{ prompt, seed, maxNewTokens: seed === 1 ? 35 : 12, topLogprobs: 2 }, // one text is longer than the block size
      frequencyPenalty: seed,
    }));
    using rows = new Rows(model, { slots: 4 });
    const seen = new Set<string>(), memory: number[] = [];
    for (let round = 0; round < 4; round++) {
      const texts = await Promise.all(requests.map((request) => Array.fromAsync(rows.add(request))));
      for (const [i, text] of texts.entries()) assertEquals(text, await alone(model, requests[i]), `${round}, ${i}`);
      seen.add(JSON.stringify(texts));
      memory.push(device.memory().bytes);
      update();
    }
    assertEquals(seen.size, 4); // each step changes the tokens
    assertEquals(memory.slice(2), memory.slice(1, 3));
    const [before] = await alone(model, requests[1]), going = rows.add(requests[1]);
    assertEquals((await going.next()).value, before);
    const waiting = rows.add(requests[0]); // the other row computed their common prefix with old weights
    update();
    assertEquals(await Array.fromAsync(waiting), await alone(model, requests[0]));
    assertEquals((await Array.fromAsync(going)).length, 34); // the row goes on with its old keys and values
  });
}
