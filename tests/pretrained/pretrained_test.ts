/** Models and their tokenizers loaded by name, and text generation with a pipeline. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { nanoGPTToRun } from "../../src/checkpoint/nanogpt_run.ts";
import { saveNanoGPT } from "../../src/checkpoint/nanogpt_save.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { createDevice } from "../../src/device/create.ts";
import type { Device } from "../../src/engine/device.ts";
import { CheckpointError, ConfigError } from "../../src/errors.ts";
import { GPT } from "../../src/gpt.ts";
import { pipeline, setSeed } from "../../src/pretrained/pipeline.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { writeMetaPkl } from "../../src/tokenizer/meta_pkl.ts";

const CONFIG = { vocabSize: 6, blockSize: 16, nLayer: 1, nHead: 2, nEmbd: 8 } as const;
const VOCABULARY = { a: 0, b: 1, c: 2, d: 3, e: 4, "<|endoftext|>": 5 };
const letters = new CharacterTokenizer([..."abcdef"]);

async function withFolder(body: (folder: string, device: Device, model: GPT) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir(), device = await createDevice("cpu", { threads: 1 });
  try {
    await body(folder, device, new GPT(CONFIG, { device, seed: 3 }).eval());
  } finally {
    device.close();
    await Deno.remove(folder, { recursive: true });
  }
}

async function saveFolder(folder: string, model: GPT): Promise<void> {
  await saveHuggingFace(model, `${folder}/hf`);
  await Deno.writeTextFile(`${folder}/hf/vocab.json`, JSON.stringify(VOCABULARY));
  await Deno.writeTextFile(`${folder}/hf/merges.txt`, "#version: 0.2\n");
}

const weightsOf = async (model: GPT) =>
  Object.fromEntries(
    await Array.fromAsync(model.namedParameters(), async ([name, weight]) => [name, await weight.data()]),
  );

Deno.test("pretrained: a run, a Hugging Face folder and a ckpt.pt give the same model", () =>
  withFolder(async (folder, device, model) => {
    await saveFolder(folder, model);
    await saveNanoGPT(`${folder}/ckpt.pt`, model, { iter: 1, bestValLoss: 1.5 });
    const description = { flags: {}, model: { ...model.config }, vocabulary: letters.toJSON() };
    const run = await RunFolder.create(`${folder}/run`, description), tensors = sources(model.namedParameters());
    await run.save({ iter: 1, model: tensors, optimizer: [], state: {} }, { best: true });
    const expected = await weightsOf(model);
    for (
      const [path, tokenizer, text] of [["run", undefined, "abcdef"], ["hf", undefined, "abcde"], ["", letters, "f"], [
        "ckpt.pt",
        letters,
        "f",
      ]] as const
    ) {
      const before = device.memory().tensors, loaded = await loadPretrained(`${folder}/${path}`, { device, tokenizer });
      assert(!loaded.model.training);
      assertEquals(await weightsOf(loaded.model), expected, path);
      assertEquals(loaded.tokenizer.decode(loaded.tokenizer.encode(text)), text);
      loaded.model.dispose();
      assertEquals(device.memory().tensors, before);
    }
  }));

Deno.test("pretrained: a run is loaded from its best or its last checkpoint; other models have no last checkpoint", () =>
  withFolder(async (folder, device, model) => {
    await saveFolder(folder, model);
    const description = { flags: {}, model: { ...model.config }, vocabulary: letters.toJSON() }, path = `${folder}/run`;
    const run = await RunFolder.create(path, description), later = new GPT(CONFIG, { device, seed: 4 });
    const save = (iter: number, { best, of }: { best: boolean; of: GPT }) =>
      run.save({ iter, model: sources(of.namedParameters()), optimizer: [], state: {} }, { best });
    await save(1, { best: true, of: model });
    await save(2, { best: false, of: later });
    for (const [checkpoint, of] of [[undefined, model], ["best", model], ["last", later]] as const) {
      const loaded = await loadPretrained(path, { device, checkpoint });
      assertEquals(await weightsOf(loaded.model), await weightsOf(of), checkpoint);
    }
    const last = () => loadPretrained(`${folder}/hf`, { device, checkpoint: "last" });
    await assertRejects(last, ConfigError, "hf is not a run; checkpoint last is only for a run");
    // With a generator, initial weights are drawn and replaced, so that later draws equal nanoGPT's.
    const [generator, expected] = [new RandomGenerator(7), new RandomGenerator(7)];
    const loaded = await loadPretrained(path, { device, generator });
    new GPT(CONFIG, { device, generator: expected });
    assertEquals([await weightsOf(loaded.model), generator.randint(1e6)], [
      await weightsOf(model),
      expected.randint(1e6),
    ]);
  }));

Deno.test("pretrained: weights that are not finite are refused with their name, in every format", () =>
  withFolder(async (folder, device, model) => {
    const { storage, size } = model.transformer.h[0].mlp.c_fc.weight, values = new Float32Array(size);
    for (const value of [NaN, Infinity, -Infinity]) {
      values[size - 1] = value;
      device.write(storage, values);
      await Deno.remove(`${folder}/hf`, { recursive: true }).catch(() => {});
      await Deno.remove(`${folder}/run`, { recursive: true }).catch(() => {});
      await saveFolder(folder, model);
      await saveNanoGPT(`${folder}/ckpt.pt`, model, { iter: 1, bestValLoss: 1.5 });
      const description = { flags: {}, model: { ...model.config }, vocabulary: letters.toJSON() };
      const run = await RunFolder.create(`${folder}/run`, description), tensors = sources(model.namedParameters());
      await run.save({ iter: 1, model: tensors, optimizer: [], state: {} }, { best: true });
      const { tensors: before } = device.memory();
      for (const path of ["run", "hf", "ckpt.pt"]) {
        const load = () => loadPretrained(`${folder}/${path}`, { device, tokenizer: letters });
        const message = `transformer.h.0.mlp.c_fc.weight has ${value} as element ${
          size - 1
        }, but weights must be finite`;
        await assertRejects(load, CheckpointError, message);
        assertEquals(device.memory().tensors, before, "and nothing is left");
      }
      const toRun = () => nanoGPTToRun(`${folder}/ckpt.pt`, `${folder}/new`, { vocabulary: letters.toJSON() });
      await assertRejects(toRun, CheckpointError, `transformer.h.0.mlp.c_fc.weight has ${value}`);
    }
  }));

Deno.test("pretrained: a ckpt.pt can name its dataset, but no folder outside data/", () =>
  withFolder(async (folder, device, model) => {
    const here = Deno.cwd(), elsewhere = new CharacterTokenizer([..."vwxyz!"]);
    await Deno.mkdir(`${folder}/data/own.set`, { recursive: true });
    for (const place of ["data/own.set", "", "data"]) await writeMetaPkl(`${folder}/${place}/meta.pkl`, elsewhere);
    try {
      Deno.chdir(folder);
      for (const dataset of ["own.set", "../data", "..", ".", "own.set/../own.set", "/etc", "", "a\\b", "none"]) {
        await saveNanoGPT("ckpt.pt", model, { iter: 1, bestValLoss: 1, flags: { dataset } });
        const load = () => loadPretrained("ckpt.pt", { device });
        if (dataset === "own.set") assertEquals((await load()).tokenizer.decode([0, 5]), "v!");
        else {
          const error = await assertRejects(
            load,
            CheckpointError,
            "it has 50257 tokens, and the model 6; it is GPT-2's",
          );
          const looked = dataset === "none" ? "its dataset has no data/none/meta.pkl" : "it names no dataset";
          for (const part of [looked, "--tokenizer=FOLDER"]) assert(error.message.includes(part), error.message);
        }
      }
      await writeMetaPkl("data/own.set/meta.pkl", new CharacterTokenizer([..."abcdefg"]));
      await saveNanoGPT("ckpt.pt", model, { iter: 1, bestValLoss: 1, flags: { dataset: "own.set" } });
      const error = await assertRejects(() => loadPretrained("ckpt.pt", { device }), CheckpointError);
      assert(error.message.includes("it has 7 tokens, and the model 6; the tokenizer is from data/own.set/meta.pkl\n"));
    } finally {
      Deno.chdir(here);
    }
  }));

Deno.test("pretrained: a missing model, and a tokenizer of another model, are errors", () =>
  withFolder(async (folder, device, model) => {
    await saveFolder(folder, model);
    await assertRejects(() => loadPretrained(`${folder}/none`, { device }), ConfigError, "expected a run folder");
    const before = device.memory().tensors, tokenizer = new CharacterTokenizer([..."abcdefg"]);
    const wrong = () => loadPretrained(`${folder}/hf`, { device, tokenizer });
    await assertRejects(wrong, CheckpointError, "it has 7 tokens, and the model 6");
    await Deno.remove(`${folder}/hf/vocab.json`);
    await assertRejects(() => loadPretrained(`${folder}/hf`, { device }), CheckpointError, "No tokenizer in");
    assertEquals(device.memory().tensors, before);
  }));

Deno.test("pipeline: loads a folder, ends texts, and has seeds and streams", () =>
  withFolder(async (folder, device, model) => {
    await saveFolder(folder, model);
    const own = device.memory().tensors, generator = await pipeline("text-generation", `${folder}/hf`, { device });
    const options = { maxNewTokens: 40, numReturnSequences: 4, temperature: 1 };
    setSeed(5);
    const texts = await generator("ab", options);
    assertEquals(texts.length, 4);
    assert(texts.every(({ generatedText }) => /^ab[a-e]*$/.test(generatedText))); // the end token is not part of the text
    assert(texts.some(({ generatedText }) => generatedText.length < 42), "one of them ends before it is full");
    const next = await generator("ab", options);
    assert(JSON.stringify(next) !== JSON.stringify(texts), "the generator goes on");
    setSeed(5);
    assertEquals(await generator("ab", options), texts);
    assertEquals(await generator("ab", { ...options, seed: 5 }), texts);
    assertEquals(await generator(["ab"], { ...options, seed: 5 }), [texts]);
    const rest = texts.map(({ generatedText }) => ({ generatedText: generatedText.slice(2) }));
    assertEquals(await generator("ab", { ...options, seed: 5, returnFullText: false }), rest);
    // An empty prompt becomes <|endoftext|>.
    const end = await loadTokenizer(`${folder}/hf`), start = { maxNewTokens: 3, doSample: false };
    assertEquals(await generator("", start), await generator("<|endoftext|>", { ...start, returnFullText: false }));
    assertEquals([...end.encode("<|endoftext|>", { allowedSpecial: "all" })], [5]);

    const one = { maxNewTokens: 9, seed: 8 }, [{ generatedText }] = await generator("cd", one);
    const pieces = await Array.fromAsync(generator.stream("cd", one));
    assertEquals(pieces.join(""), generatedText);
    assertEquals(pieces[0], "cd");
    const stop = generatedText.slice(4, 6), stopped = await generator("cd", { ...one, stopStrings: stop });
    assertEquals(stopped[0].generatedText, `cd${generatedText.slice(2).split(stop)[0]}`);
    await assertRejects(() => Array.fromAsync(generator.stream("cd", options)), ConfigError, "expected 1 for a stream");
    await assertRejects(() => generator("cd", { maxLength: 2 }), ConfigError, "which includes the prompt's 2 tokens");
    await assertRejects(() => generator("cd", { maxLength: 5, maxNewTokens: 3 }), ConfigError, "both given");
    // deno-lint-ignore no-explicit-any
    await assertRejects(() => pipeline("fill-mask" as any, `${folder}/hf`), ConfigError, "only for text-generation");
    const before = device.memory().tensors;
    generator.close();
    assert(device.memory().tensors < before && !device.closed, "the model is the pipeline's own, the device is not");
    assertEquals(device.memory().tensors, own);
  }));
