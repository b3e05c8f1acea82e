/** The engine: a text does not depend on other requests; queues, keys, aborts, errors, and shutdown. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { createDevice } from "../../src/device/create.ts";
import { CheckpointError, ConfigError, DataError, DeviceError } from "../../src/errors.ts";
import { noGrad } from "../../src/engine/autograd.ts";
import { features } from "../../src/evaluate/features.ts";
import { saveAdapter } from "../../src/finetune/adapter.ts";
import { applyLora, type LoraOptions } from "../../src/finetune/lora.ts";
import { generateSequences } from "../../src/generate/generate.ts";
import { GPT } from "../../src/gpt.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { Draining, type GenerateRequest, type Piece, QueueFull, Unavailable } from "../../src/server/engine_api.ts";
import type { ModelSpec } from "../../src/server/messages.ts";
import { type EngineOptions, openEngine, type WorkerEngine } from "../../src/server/worker_engine.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { assertClose, inFolder, runCommand } from "../testing.ts";

const V = 23, BLOCK = 48, tokenizer = new CharacterTokenizer([..."abcdefghijklmnopqrstuvw"]);
const sizes = { vocabSize: V, blockSize: BLOCK, nLayer: 2, nHead: 2, nEmbd: 24 };

/** Saves a model in a folder. Its weights are large, so that it clearly prefers some tokens. */
async function save(path: string): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  const model = new GPT(sizes, { device }), generator = new RandomGenerator(2);
  for (const weight of model.parameters()) {
    const values = new Float32Array(weight.size);
    generator.normal(values, 0, 0.35);
    device.write(weight.storage, values);
  }
  await saveHuggingFace(model, path, { tokenizer });
}

const spec = (path: string, more: Partial<ModelSpec> = {}): ModelSpec => ({
  ...{ id: "m", path, weights: "f32", device: "cpu", threads: 2, slots: 8, cache: "f32" },
  ...more,
});

/** Runs `body` with an engine that serves the model `m`. */
function serving(
  body: (engine: WorkerEngine, folder: string) => Promise<void>,
  { model, ...options }: Partial<EngineOptions> & { model?: Partial<ModelSpec> } = {},
): Promise<void> {
  return inFolder(async (folder) => {
    await save(`${folder}/m`);
    await using engine = await openEngine({ models: [spec(`${folder}/m`, model)], ...options });
    await body(engine, folder);
  });
}

/** Makes a request in which options have no effect unless `more` sets them. */
const asking = (more: Partial<GenerateRequest> = {}): GenerateRequest => ({
  ...{ model: "m", prompt: [1, 2, 3], count: 1, maxNewTokens: 8, temperature: 1, topP: 1, seed: 1, stop: [] },
  ...{ logitBias: new Map(), frequencyPenalty: 0, presencePenalty: 0 },
  ...more,
});
const never = new AbortController().signal;

/** Collects the texts of a request with their tokens. */
async function written(engine: WorkerEngine, request: GenerateRequest, signal = never) {
  const { pieces, promptLogprobs } = engine.generate(request, signal);
  const texts = Array.from({ length: request.count }, () => ({
    ...{ text: "", tokens: [] as Piece["tokens"][number][], finish: undefined as Piece["finish"] },
  }));
  for await (const some of pieces) {
    for (const { index, text, tokens, finish } of some) {
      const of = texts[index];
      of.text += text;
      of.tokens.push(...tokens);
      of.finish ??= finish;
    }
  }
  return { texts, scores: await promptLogprobs };
}

/** Makes a request with random options. */
function mixed(seed: number): GenerateRequest {
  const random = new RandomGenerator(seed), pick = <T>(...of: T[]): T => of[random.randint(of.length)];
  const length = 1 + random.randint(30);
  return asking({
    prompt: Array.from({ length }, () => random.randint(seed % 3 ? V : 2)), // some share a prefix
    count: pick(1, 1, 1, 3),
    maxNewTokens: 1 + random.randint(BLOCK - length),
    temperature: pick(0, 0.7, 1.3),
    topP: pick(1, 1, 0.8),
    topK: pick(undefined, 5),
    minP: pick(undefined, undefined, 0.05),
    seed,
    stop: pick([], [], ["ab", "c"]),
    endIds: pick(undefined, [4]),
    logitBias: pick(new Map(), new Map([[3, 2], [7, -100]])),
    frequencyPenalty: pick(0, 0, 0.3),
    presencePenalty: pick(0, 0, 0.5),
    topLogprobs: pick(undefined, undefined, 0, 3),
    promptLogprobs: pick(undefined, undefined, undefined, 2),
    key: pick(undefined, "a", "b"),
  });
}

Deno.test("engine: 64 concurrent requests of all kinds give the same texts as each alone", () =>
  serving(async (engine) => {
    const requests = Array.from({ length: 64 }, (_, seed) => mixed(seed));
    const inputs = [[1, 2, 3], Array.from({ length: BLOCK }, (_, i) => i % V)];
    const [together, vectors] = await Promise.all([
      Promise.all(requests.map((request) => written(engine, request))),
      engine.embed("m", inputs, never),
    ]);
    for (const [i, request] of requests.entries()) assertEquals(await written(engine, request), together[i], `${i}`);
    assertEquals(vectors, [
      ...await engine.embed("m", inputs.slice(0, 1), never),
      ...await engine.embed("m", inputs.slice(1), never),
    ]);
    const { generationTokens, promptTokens: { computed, cached }, running, waiting } = engine.counts;
    const of = (count: (request: GenerateRequest) => number) => 2 * requests.reduce((sum, one) => sum + count(one), 0);
    const tokens = together.flatMap(({ texts }) => texts).reduce((sum, { tokens }) => sum + tokens.length, 0);
    assertEquals([generationTokens, running, waiting], [2 * tokens, 0, 0]);
    assertEquals(computed + cached, of(({ prompt, count }) => prompt.length * count));
    assert(cached > 0);
  }));

/** Saves an adapter with random weights in a folder. */
async function saveLora(
  base: string,
  path: string,
  { seed, ...options }: LoraOptions & { seed: number },
): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  const { model } = await loadPretrained(base, { device }), lora = applyLora(model, options);
  const generator = new RandomGenerator(seed);
  for (const [, weight] of lora.namedParameters()) {
    const values = new Float32Array(weight.size);
    generator.normal(values, 0, 0.3);
    device.write(weight.storage, values);
  }
  await saveAdapter(path, lora);
}

Deno.test("engine: adapters of one base give the same texts as each alone, also if one is loaded meanwhile", () =>
  serving(async (engine, folder) => {
    const base = `${folder}/m`, lora = (id: string) => ({ id, base: "m", path: `${folder}/${id}` });
    await saveLora(base, `${folder}/x`, { seed: 1, rank: 3, alpha: 5, targets: ["c_attn", "c_fc"] });
    await saveLora(base, `${folder}/y`, {
      seed: 2,
      rank: 2,
      targets: "all-linear",
      rankPattern: { c_attn: 4 }, // half the scaling of the other layers
    });
    await saveLora(base, `${folder}/z`, { seed: 3, rank: 2, trainableTokens: [1, 2], targets: ["c_proj"] });
    await engine.load(lora("x"));
    const ask = (model: string, seed: number) =>
      asking({ model, seed, prompt: [1, 2, 3, 4, 5, 6], maxNewTokens: 30, topLogprobs: 1, stop: [] });
    const early = written(engine, ask("x", 0)), plain = written(engine, ask("m", 0));
    await engine.load(lora("y")); // the matrices of both adapters are packed again
    await engine.load(lora("z")); // it replaces rows of the embedding, which needs its own copy of the base
    assertEquals(["m", "x", "y", "z"].map((id) => engine.info(id)!.base), ["m", "m", "m", "z"]);
    const requests = Array.from({ length: 24 }, (_, i) => ask(["m", "x", "y", "z"][i % 4], Math.floor(i / 4)));
    const together = await Promise.all(requests.map((request) => written(engine, request)));
    assertEquals([await plain, await early], together.slice(0, 2));
    const distinct = new Set(together.slice(0, 4).map(({ texts: [{ text }] }) => text));
    assertEquals(distinct.size, 4);
    using device = await createDevice("cpu", { threads: 1 });
    for (const [i, { model: id, prompt, maxNewTokens, seed, topLogprobs }] of requests.entries()) {
      const adapter = id === "m" ? undefined : `${folder}/${id}`;
      const { model, tokenizer } = await loadPretrained(base, { device, adapter, inference: true });
      const tokens = await Array.fromAsync(
        generateSequences(model, prompt, { maxNewTokens, seed, topLogprobs, draws: "philox", tokenizer }),
      );
      const expected = tokens.map(({ id, logprob, topLogprobs }) => ({ id, logprob, top: topLogprobs }));
      assertEquals(together[i].texts[0].tokens, expected, `${id} ${seed}`);
      model.dispose();
    }
    for (const [id, adapter] of [["m", undefined], ["x", `${folder}/x`]] as const) {
      const { model } = await loadPretrained(base, { device, adapter });
      const { lastHiddenState } = noGrad(() => features(model, device.tensor([1, 2, 3], [1, 3], { dtype: "i32" })));
      const states = await lastHiddenState.data(), [mean] = await engine.embed(id, [[1, 2, 3]], never);
      const expected = mean.map((_, c) => (states[c] + states[sizes.nEmbd + c] + states[2 * sizes.nEmbd + c]) / 3);
      assertClose(mean, expected, { atol: 1e-5, rtol: 1e-5 }, id);
      model.dispose();
    }
    await Deno.mkdir(`${folder}/w`);
    await assertRejects(() => engine.load(lora("w")), CheckpointError, "is not an adapter");
    await assertRejects(() => engine.load({ ...lora("x"), id: "v", base: "n" }), ConfigError, "No model is called n");
  }));

Deno.test("engine: a lazy model is loaded at its first request, in place of the longest-idle one if needed", () =>
  inFolder(async (folder) => {
    await save(`${folder}/m`);
    const model = (id: string, lazy = true) => spec(`${folder}/m`, { id, lazy, slots: 1, threads: 1 });
    await using probe = await openEngine({ models: [model("m", false)] });
    const { bytes } = probe.info("m")!;
    await using engine = await openEngine({
      models: [model("m", false), model("a"), model("b"), model("c")],
      memory: 3 * bytes,
    });
    const loaded = () => engine.models().filter(({ loaded }) => loaded).map(({ id }) => id).join();
    const ask = (id: string, more = {}) => written(engine, asking({ model: id, maxNewTokens: 4, ...more }));
    assertEquals(loaded(), "m");
    const [expected, a] = await Promise.all([ask("m"), ask("a"), ask("b")]);
    assertEquals(a, expected);
    assertEquals(loaded(), "m,a,b");
    await ask("a");
    assertEquals(await ask("c"), expected);
    assertEquals(loaded(), "m,a,c");
    const stop = new AbortController(), endless = { maxNewTokens: 1_000_000, overflow: "slide" as const };
    const cut = ["a", "c"].map((model) =>
      assertRejects(() => written(engine, asking({ model, ...endless }), stop.signal))
    );
    await assertRejects(() => ask("b"), Unavailable);
    await assertRejects(() => engine.embed("b", [[1]], never), Unavailable);
    assertThrows(() => engine.remove("a"), ConfigError, "a is in use: it is generating texts");
    stop.abort(new Error("stop"));
    await Promise.all(cut);
    assertEquals(await ask("b"), expected);
    engine.remove("b");
    assertThrows(() => engine.generate(asking({ model: "b" }), never), ConfigError, "No model is called b");
    for (const id of ["d", "e"]) await engine.load(model(id, false));
    assertEquals(loaded(), "m,d,e");
    await assertRejects(() => engine.load(model("f", false)), DeviceError, "are in use");
  }));

Deno.test("engine: a run's adapter is loaded on its own base only, and a key's models are visible to that key only", () =>
  inFolder(async (folder) => {
    const place = (name: string) => `${folder}/${name}`,
      sizes = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--block_size=32"];
    await Deno.writeTextFile(place("text.txt"), "color red? der\ncolor blue? eulb\n".repeat(20));
    await Deno.writeTextFile(place("rows.jsonl"), '{"prompt":"color red? ","completion":"der\\n"}\n'.repeat(20));
    const run = async (name: string, ...args: string[]) => {
      const { code, err } = await runCommand(
        name,
        ...args,
        "--threads=1",
        "--max_iters=2",
        "--eval_iters=1",
        "--batch_size=2",
      );
      assertEquals(code, 0, err);
    };
    for (const [base, seed] of [["base", 1], ["other", 2]] as const) {
      await run("train", ...sizes, `--input=${place("text.txt")}`, `--out_dir=${place(base)}`, `--seed=${seed}`);
    }
    const tune = [
      `--data=${place("rows.jsonl")}`,
      `--init_from=${place("base")}`,
      "--lora_rank=2",
      "--learning_rate=0.5",
    ];
    await run("finetune", ...tune, `--out_dir=${place("tuned")}`);
    const model = (id: string) => spec(place(id), { id, threads: 1 });
    await using engine = await openEngine({ models: [model("base"), model("other")] });
    await engine.load({
      id: "ft:x",
      base: "base",
      path: place("tuned"),
      owner: "ada",
      ownedBy: "ada",
      created: 5,
      lazy: true,
    });
    assertEquals(engine.models().map(({ id }) => id), ["base", "other"]);
    assertEquals(engine.models("ada").map(({ id, created, loaded }) => [id, created, loaded])[2], ["ft:x", 5, false]);
    const ask = asking({ model: "ft:x", prompt: [1, 2], temperature: 0 });
    assertThrows(() => engine.generate(ask, never), ConfigError, "No model is called ft:x");
    const { texts: [{ tokens }] } = await written(engine, { ...ask, key: "ada" });
    using device = await createDevice("cpu", { threads: 1 });
    const alone = await loadPretrained(place("tuned"), { device, inference: true });
    const options = { maxNewTokens: ask.maxNewTokens, temperature: 0 };
    const expected = await Array.fromAsync(generateSequences(alone.model, ask.prompt, options));
    assertEquals(tokens.map(({ id }) => id), expected.map(({ id }) => id));
    assertEquals(engine.info("ft:x")!.base, "base");
    const wrong = { id: "w", base: "other", path: place("tuned") };
    await assertRejects(() => engine.load(wrong), CheckpointError, "is not an adapter for other");
    await assertRejects(
      () => engine.load({ ...wrong, path: place("base") }),
      ConfigError,
      "is a run without an adapter",
    );
    assertThrows(() => engine.remove("base"), ConfigError, "it is the base of the adapter ft:x");
    engine.remove("ft:x");
    assertEquals((await written(engine, { ...ask, model: "base" })).texts[0].tokens.length, ask.maxNewTokens);
  }));

Deno.test("engine: prefixes are shared within a key, and not between keys", () =>
  serving(async (engine) => {
    const prompt = Array.from({ length: 20 }, (_, i) => i),
      cached = async (key?: string) => {
        const found: (number | undefined)[] = [];
        for await (const pieces of engine.generate(asking({ prompt, key }), never).pieces) {
          for (const piece of pieces) found.push(piece.cached);
        }
        return found[0];
      };
    assertEquals(await cached("a"), 0);
    assertEquals(await cached("b"), 0);
    assertEquals(await cached(), 0);
    assertEquals([await cached("a"), await cached("b"), await cached()], [19, 19, 19]);
  }));

Deno.test("engine: a prompt can be scored without generating a token", () =>
  serving(async (engine) => {
    const { texts: [text], scores } = await written(engine, asking({ maxNewTokens: 0, promptLogprobs: 1 }));
    assertEquals([text.text, text.tokens, text.finish], ["", [], "length"]);
    assertEquals(scores!.map(({ id, top }) => [id, top.length]), [[2, 1], [3, 1]]);
  }));

Deno.test("engine: a text longer than the block size is refused, or slides", () =>
  serving(async (engine) => {
    const long = asking({ prompt: [1], maxNewTokens: BLOCK });
    assertThrows(() => engine.generate(long, never), ConfigError, "exceeds the model's context of 48 tokens");
    const { texts: [text] } = await written(engine, { ...long, maxNewTokens: 2 * BLOCK, overflow: "slide" });
    assertEquals([text.tokens.length, text.finish], [2 * BLOCK, "length"]);
  }));

Deno.test("engine: a request is refused if the queue is full, and queued requests are completed", () =>
  serving(async (engine) => {
    const some = (key?: string) => written(engine, asking({ maxNewTokens: 40, key }));
    const taken = Array.from({ length: 2 + 4 }, () => some());
    await assertRejects(() => some(), QueueFull);
    assertThrows(() => engine.generate(asking({ count: 5 }), never), QueueFull);
    for (const { texts: [{ finish }] } of await Promise.all(taken)) assertEquals(finish, "length");
    const own = Array.from({ length: 2 + 3 }, () => some("a")); // a key can use two slots and 3/4 of the queue
    await assertRejects(() => some("a"), QueueFull);
    await Promise.all([...own, some("b")]);
  }, { queue: 4, model: { slots: 2 } }));

Deno.test("engine: a request with more embeddings than the queue has room for is accepted", () =>
  serving(async (engine) => {
    const inputs = Array.from({ length: 100 }, (_, i) => [i % V]), vectors = await engine.embed("m", inputs, never);
    assertEquals(vectors.length, 100);
    assertEquals(vectors[V], vectors[0]);
  }, { queue: 8 }));

Deno.test("engine: a model's template may run for one second", () =>
  inFolder(async (folder) => {
    await save(`${folder}/m`);
    const loops = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
    await Deno.writeTextFile(`${folder}/m/chat_template.jinja`, loops);
    await using engine = await openEngine({ models: [spec(`${folder}/m`)] });
    const [{ template }] = engine.models();
    await assertRejects(
      () => template!.ids(tokenizer, [{ role: "user", content: "a" }]),
      DataError,
      "takes more than 1 seconds",
    );
  }));

Deno.test("engine: while other keys wait, a key with half of the slots gets no more", () =>
  serving(async (engine) => {
    const order: string[] = [], texts: Promise<void>[] = [];
    const write = (key: string, name: string, maxNewTokens: number) =>
      texts.push((async () => {
        for await (const _ of engine.generate(asking({ key, maxNewTokens, seed: texts.length }), never).pieces) {
          if (!order.includes(name)) order.push(name);
        }
      })());
    for (let i = 0; i < 4; i++) write("a", `a${i}`, 20 + 5 * i); // takes all four slots
    for (let i = 4; i < 8; i++) write("a", `a${i}`, 5);
    write("b", "b0", 5);
    write("b", "b1", 5);
    await Promise.all(texts);
    const at = (name: string) => order.indexOf(name);
    assert(at("b0") < at("a4") && at("b1") < at("a5"), `${order}`);
  }, { model: { slots: 4, threads: 1 } }));

Deno.test("engine: a thousand requests aborted at random moments leave no slot, tensor or count", () =>
  serving(async (engine) => {
    await written(engine, asking({ count: 8, topLogprobs: 3, frequencyPenalty: 1 })); // allocates buffers for later
    await engine.embed("m", [[1]], never);
    const { tensors } = engine.counts, random = new RandomGenerator(3);
    let received = 0;
    const one = async (seed: number) => {
      const controller = new AbortController(), left = new Error("left");
      const when = random.randint(4), texts = engine.generate({ ...mixed(seed), key: undefined }, controller.signal);
      if (when === 0) controller.abort(left); // before the first piece
      else if (when === 1) setTimeout(() => controller.abort(left), random.randint(30));
      try {
        for await (const pieces of texts.pieces) {
          for (const { tokens } of pieces) received += tokens.length;
          if (when === 2) break;
          if (when === 3 && random.randint(2) === 0) controller.abort(left);
        }
      } catch (error) {
        assert(error === left, `${error}`);
      }
    };
    for (let i = 0; i < 10; i++) await Promise.all(Array.from({ length: 100 }, (_, k) => one(100 * i + k)));
    while (engine.counts.running + engine.counts.waiting > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const { generationTokens, aborted, tensors: after } = engine.counts;
    assertEquals(after, tensors);
    assert(Object.values(aborted).every((count) => count > 0), JSON.stringify(aborted));
    assert(received <= generationTokens);
    await written(engine, asking({ maxNewTokens: 3, seed: 5 })); // the counts rise by this request's tokens only
    assertEquals(engine.counts.generationTokens, generationTokens + 3);
  }, { queue: 2000 }));

Deno.test("engine: an error goes to its own request, and other requests continue", () =>
  serving(async (engine, folder) => {
    const good = written(engine, asking({ maxNewTokens: 40 }));
    const all = new Map(Array.from({ length: V }, (_, id) => [id, -Infinity] as const));
    await assertRejects(() => written(engine, asking({ count: 2, logitBias: all })), ConfigError, "bans every token");
    await assertRejects(() => written(engine, asking({ prompt: [V] })), ConfigError, "the vocabulary ends at 22");
    assertThrows(() => engine.generate(asking({ model: "n" }), never), ConfigError, "No model is called n");
    assertThrows(() => engine.embed("m", [[]], never), ConfigError, "An input has 0 tokens");
    assertEquals((await good).texts[0].finish, "length");
    await assertRejects(() => engine.load(spec(`${folder}/m`)), ConfigError, "Two models are called m");
    await Deno.truncate(`${folder}/m/model.safetensors`, 100);
    await assertRejects(() => openEngine({ models: [spec(`${folder}/m`)] }), CheckpointError);
    await assertRejects(() => openEngine({ models: [spec(`${folder}/none`)] }), ConfigError, "No model");
  }));

Deno.test("engine: a lazy model that is removed while it is loading leaves nothing in memory", () =>
  serving(async (engine, folder) => {
    const { deviceBytes } = engine.counts;
    await engine.load(spec(`${folder}/m`, { id: "lazy", lazy: true }));
    const left = new AbortController(), running = written(engine, asking({ model: "lazy" }), left.signal);
    left.abort();
    await assertRejects(() => running);
    engine.remove("lazy");
    await engine.load(spec(`${folder}/m`, { id: "other" })); // returns after the loading of `lazy` has ended
    engine.remove("other");
    await written(engine, asking());
    assertEquals(engine.counts.deviceBytes, deviceBytes);
  }));

Deno.test("engine: it is not ready after 30 s without a step; if the worker fails, all requests fail", async () => {
  const { Worker } = globalThis, workers: Worker[] = [], { now } = Date;
  globalThis.Worker = class extends Worker {
    constructor(...given: ConstructorParameters<typeof Worker>) {
      super(...given);
      workers.push(this);
    }
  };
  try {
    await serving(async (engine) => {
      const { pieces } = engine.generate(asking({ maxNewTokens: 100_000, overflow: "slide" }), never),
        reading = pieces[Symbol.asyncIterator]();
      await reading.next();
      assertEquals(engine.health.ready, true);
      Date.now = () => now() + 31_000;
      assertEquals([engine.health.alive, engine.health.ready], [true, false]);
      Date.now = now;
      workers[0].postMessage({ kind: "unload", of: 0, id: "none" }); // an invalid message
      await assertRejects(() => engine.failed, Error, "No model is called none");
      await assertRejects(
        async () => {
          while (!(await reading.next()).done);
        },
        Error,
        "The engine has failed",
      );
      assertEquals(engine.health.alive, false);
      assertThrows(() => engine.generate(asking(), never), Error, "The engine has failed");
    });
  } finally {
    Date.now = now;
    globalThis.Worker = Worker;
  }
});

Deno.test("engine: draining refuses new requests and completes running ones, or aborts them after the time limit", () =>
  serving(async (engine) => {
    const running = written(engine, asking({ maxNewTokens: 40 })), drained = engine.drain(30_000);
    assertThrows(() => engine.generate(asking(), never), Draining);
    assertEquals([engine.health.alive, engine.health.ready], [true, false]);
    await drained;
    assertEquals((await running).texts[0].tokens.length, 40);
    await engine[Symbol.asyncDispose]();
    assertEquals(engine.health.alive, false);
  }).then(() =>
    serving(async (engine) => {
      const endless = asking({ maxNewTokens: 1_000_000, overflow: "slide" });
      const cut = assertRejects(() => written(engine, endless), Draining);
      await engine.drain(50);
      await cut;
    })
  ));
