/** LoRA adapters: in runs, several on one model, disabled, removed, used for generation; and errors. */
import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import type { Device } from "../../src/engine/device.ts";
import { CheckpointError, ConfigError } from "../../src/errors.ts";
import { loadAdapter, saveAdapter, trainedAdapter } from "../../src/finetune/adapter.ts";
import { adaptersOf, applyLora, type LoraOptions } from "../../src/finetune/lora.ts";
import { SequenceClassifier } from "../../src/finetune/heads.ts";
import { SafetensorsFile, writeSafetensors } from "../../src/files/safetensors.ts";
import { generate } from "../../src/generate/generate.ts";
import { GPT, type GPTConfig, type GPTOptions } from "../../src/gpt.ts";
import { identifyModel, loadPretrained } from "../../src/pretrained/load.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { inFolder, openDevice } from "../testing.ts";

const tokenizer = CharacterTokenizer.fromText("abcdefg");
const CONFIG: GPTConfig = { blockSize: 6, vocabSize: 7, nLayer: 2, nHead: 2, nEmbd: 32, dropout: 0, bias: true };
const RUN = {
  ...{ batchSize: 3, gradientAccumulationSteps: 2, maxIters: 8, evalInterval: 3, evalIters: 1, logInterval: 1 },
  ...{ learningRate: 1e-2, warmupIters: 0, decayLr: false },
};
const generator = new RandomGenerator(1);
const tokens = Int32Array.from({ length: 200 }, () => generator.randint(CONFIG.vocabSize));

const newModel = (device: Device, options: Partial<GPTOptions> = {}) => new GPT(CONFIG, { device, ...options });

function logits(model: GPT): Promise<number[]> {
  using _ = model.device.scope();
  const ids = model.device.tensor(Int32Array.of(1, 2, 3, 4), [1, 4], { dtype: "i32" });
  const { logits } = model.forward(ids, ids);
  return logits.data().then((values) => [...values]);
}
async function text(model: GPT): Promise<number[]> {
  return await Array.fromAsync(generate(model, [1, 2], { maxNewTokens: 8, temperature: 0 }));
}
/** Fills the adapter with random numbers, so that it changes the model's output. */
function disturb(lora: ReturnType<typeof applyLora>, seed = 5): void {
  const random = new RandomGenerator(seed);
  for (const [, { device, storage }] of lora.namedParameters()) {
    device.fill(storage, (values) => random.normal(values, 0, 0.3));
  }
}

for (const name of ["reference", "cpu"]) {
  const onDevice = (title: string, body: (device: Device, path: string) => Promise<void>) =>
    Deno.test(`LoRA: ${title} (${name})`, () =>
      inFolder(async (path) => {
        const device = await openDevice(name, { threads: 1, guards: true });
        await body(device, path);
        device.close();
      }));

  onDevice(
    "a run writes PEFT's files, resumes bit for bit with dropout, and loads with its base",
    async (device, path) => {
      const base = `${path}/base`;
      using model = newModel(device);
      await saveHuggingFace(model, base, { tokenizer });
      const identity = await identifyModel(base);
      const begin = async (out: string, maxIters: number, open?: boolean) => {
        const { model } = await loadPretrained(base, { device, tokenizer });
        const lora = applyLora(model, { rank: 2, dropout: 0.3, targets: ["c_attn", "c_fc"], seed: open ? 99 : 1337 });
        const description = {
          flags: {},
          model: { ...model.config },
          vocabulary: tokenizer.toJSON(),
          base: { name: base, identity },
        };
        const folder = open ? await RunFolder.open(out) : await RunFolder.create(out, description);
        const adapter = trainedAdapter(lora, { base });
        const data = { train: tokens, val: tokens };
        const trainer = new Trainer(model, data, {
          ...RUN,
          maxIters,
          folder,
          adapter,
          generator: new RandomGenerator(3),
        });
        if (open) await trainer.resume();
        await Array.fromAsync(trainer.run());
        const numbers = await logits(model.eval());
        trainer.dispose();
        return { numbers, last: `${out}/${folder.last}` };
      };
      const whole = await begin(`${path}/whole`, 8);
      await begin(`${path}/half`, 3);
      const resumed = await begin(`${path}/half`, 8, true);
      assertEquals(resumed.numbers, whole.numbers);
      const files = await Array.fromAsync(Deno.readDir(whole.last), ({ name }) => name);
      assertEquals(files.sort(), [
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
      ]);
      for (const file of files.filter((file) => file.endsWith(".safetensors"))) {
        assertEquals(
          await Deno.readFile(`${resumed.last}/${file}`),
          await Deno.readFile(`${whole.last}/${file}`),
          file,
        );
      }
      const loaded = await loadPretrained(`${path}/whole`, { device, checkpoint: "last" });
      assertEquals(await logits(loaded.model), whole.numbers);
      assertEquals(adaptersOf(loaded.model).length, 1);
      const apart = await loadPretrained(base, { device, tokenizer, adapter: whole.last });
      assertEquals(await logits(apart.model), whole.numbers);
      const twice = await loadPretrained(`${path}/whole`, { device, checkpoint: "last", adapter: whole.last });
      assertEquals(adaptersOf(twice.model).length, 2); // the run's own adapter, and the adapter loaded by its path

      await Deno.remove(base, { recursive: true });
      const load = () => loadPretrained(`${path}/whole`, { device });
      await assertRejects(load, CheckpointError, "which cannot be read");
      using other = newModel(device, { seed: 5 });
      await saveHuggingFace(other, base, { tokenizer });
      await assertRejects(load, CheckpointError, "which has changed: the run began with other weights");
    },
  );

  onDevice(
    "two adapters on a model add up, and can be disabled and removed in any order, also in captured passes",
    async (device, path) => {
      using model = newModel(device).eval();
      const base = await logits(model), words = await text(model);
      const first = applyLora(model, { rank: 2 });
      disturb(first);
      const one = await logits(model), oneText = await text(model);
      assertNotEquals(one, base);
      assertNotEquals(oneText, words);
      await saveAdapter(`${path}/first`, first);
      const second = applyLora(model, { rank: 3, targets: ["c_attn", "mlp.c_proj"], modulesToSave: ["ln_f"] });
      disturb(second, 6);
      const both = await logits(model);
      first.enabled = false;
      const two = await logits(model);
      for (const others of [base, one, both]) assertNotEquals(two, others);
      second.enabled = false;
      assertEquals(await logits(model), base);
      assertEquals(await text(model), words);
      first.enabled = true;
      assertEquals(await logits(model), one);
      second.enabled = true;
      assertEquals(await logits(model), both);
      first.remove(); // the second adapter's wrappers are around the first adapter's
      assertEquals(await logits(model), two);
      second.remove();
      assertEquals(await logits(model), base);
      assertEquals(adaptersOf(model), []);
      using _ = await loadAdapter(`${path}/first`, model);
      assertEquals(await text(model), oneText);
      assertEquals(await logits(model), one);
    },
  );

  onDevice("merging does not change the text, and a model with an adapter is not exported", async (device, path) => {
    using model = newModel(device).eval();
    const lora = applyLora(model, { rank: 4, targets: "all-linear" });
    disturb(lora);
    const words = await text(model), before = device.memory().tensors;
    await assertRejects(() => saveHuggingFace(model, `${path}/hf`), CheckpointError, "merge it into the weights first");
    lora.merge();
    assertEquals(await text(model), words);
    assert(device.memory().tensors < before);
    await saveHuggingFace(model, `${path}/hf`, { tokenizer });
    using loaded = (await loadPretrained(`${path}/hf`, { device })).model;
    assertEquals(await text(loaded), words);
  });

  onDevice("merging an adapter of a tied head unties the head", async (device, path) => {
    using model = newModel(device).eval();
    disturb(applyLora(model, { rank: 2, targets: ["lm_head"] }));
    const words = await text(model);
    adaptersOf(model)[0].merge();
    assertEquals(model.config.tieWordEmbeddings, false);
    assertEquals(await text(model), words);
    await saveHuggingFace(model, `${path}/hf`, { tokenizer });
    using loaded = (await loadPretrained(`${path}/hf`, { device })).model;
    assertEquals(await text(loaded), words);
  });
}

Deno.test("LoRA: invalid options and folders are refused and do not change the model", () =>
  inFolder(async (path) => {
    const device = await openDevice("cpu", { threads: 1 });
    using model = newModel(device);
    const before = { names: [...model.namedParameters()].map(([name]) => name), ...device.memory() };
    const refused = (options: LoraOptions, message: string) => {
      assertThrows(() => applyLora(model, options), ConfigError, message);
      assertEquals([...model.namedParameters()].map(([name]) => name), before.names);
      assertEquals(device.memory().tensors, before.tensors);
    };
    refused(
      { targets: ["c_atn"] },
      '"c_atn" matches no linear layer of the model, which has c_attn, c_proj, c_fc, lm_head; did you mean c_attn?',
    );
    refused({ targets: ["wte"] }, '"wte" matches no linear layer');
    refused({ targets: ".*query" }, 'the pattern ".*query" matches no linear layer');
    refused({ targets: ".*h.1.*" }, 'the pattern ".*h.1.*" matches transformer.h.1, which is not a linear layer');
    for (const targets of ["(a+)+b", "((a+))+b", "(.|.)*b"]) refused({ targets }, "repeats a group");
    refused({ targets: ".*.*.*.*.*.*.*b" }, "has more than 6 repetitions");
    refused({ targets: "h.(0" }, "is not a regular expression");
    refused({ targets: [] }, "no targets");
    refused({ layers: [2] }, "there is no layer 2; the model's are 0 to 1");
    refused({ rank: 0 }, "rank is 0; expected a whole number above 0");
    refused({ rankPattern: { c_attn: 1.5 } }, "rank of transformer.h.0.attn.c_attn is 1.5");
    refused({ alpha: NaN }, "alpha is NaN");
    refused({ dropout: 1 }, "dropout is 1");
    refused({ modulesToSave: ["score"] }, "there is no module score to save");
    refused(
      { trainableTokens: [3, 7] },
      "trainable token 7 is not in the vocabulary of 7 tokens; add the tokens of a chat",
    );
    refused({ trainableTokens: [3, 3] }, "trainable token 3 is listed twice");
    refused({ trainableTokens: [3], modulesToSave: ["wte"] }, "modulesToSave trains all of wte");

    for (const weights of ["bf16", "q8_0"] as const) {
      using rounded = newModel(device, { weights });
      const lora = applyLora(rounded);
      assertThrows(() => lora.merge(), ConfigError, `transformer.h.0.attn.c_attn is stored in ${weights}`);
      lora.remove();
    }
    const lora = applyLora(model);
    lora.enabled = false;
    assertThrows(() => lora.merge(), ConfigError, "the adapter is disabled");
    lora.enabled = true;
    await saveAdapter(`${path}/a`, lora);
    lora.remove();

    using wider = new GPT({ ...CONFIG, nEmbd: 64 }, { device }),
      shallow = new GPT({ ...CONFIG, nLayer: 1 }, { device });
    const load = (model: GPT, message: string, onNote?: (line: string) => void) =>
      assertRejects(() => loadAdapter(`${path}/a`, model, { onNote }), CheckpointError, message);
    await load(wider, "transformer.h.0.attn.c_attn is [192,64], and lora_A [8,32], expected [r,64]");
    await load(shallow, "is for another base: the model has no transformer.h.1.attn.c_attn");
    const file = `${path}/a/adapter_config.json`, config = JSON.parse(await Deno.readTextFile(file));
    const change = (fields: object) => Deno.writeTextFile(file, JSON.stringify({ ...config, ...fields }));
    for (
      const [fields, message] of [
        [{ use_dora: true }, "adapters with DoRA are not supported"],
        [{ peft_type: "IA3" }, 'has peft_type "IA3", but only LORA is supported'],
        [{ bias: "all" }, "adapters with bias are not supported"],
        [{ init_lora_weights: "pissa" }, "adapters with init_lora_weights are not supported"],
        [{ r: 0 }, "has r 0, expected a whole number above 0"],
        [{ alpha_pattern: { "(c+)*": 3 } }, "repeats a group"],
      ] as const
    ) {
      await change(fields);
      await load(model, message);
    }
    const notes: string[] = [];
    await Deno.writeTextFile(file, JSON.stringify({ peft_type: "LORA", r: 8, new_field: 1 })); // few fields, as in older files, and an unknown one
    (await loadAdapter(`${path}/a`, model, { onNote: (line) => notes.push(line) })).remove();
    assertEquals(notes, [`${file}: unknown fields are ignored: new_field`]);
    assertEquals(device.memory().tensors - before.tensors, [...wider.parameters(), ...shallow.parameters()].length + 2);
    device.close();
  }));

Deno.test("LoRA: a classifier's head is trained and saved with the adapter, and loaded from a file with GPT2Model's names", () =>
  inFolder(async (path) => {
    const device = await openDevice("cpu", { threads: 1 });
    using model = newModel(device), head = new SequenceClassifier(model, 3);
    const lora = applyLora(model, { rank: 2, head });
    disturb(lora);
    const trained = [...lora.namedParameters()].map(([name]) => name);
    assertEquals(trained.at(-1), "base_model.model.score.weight");
    await saveAdapter(`${path}/a`, lora, { taskType: "SEQ_CLS" });
    const { modules_to_save, task_type } = JSON.parse(await Deno.readTextFile(`${path}/a/adapter_config.json`));
    assertEquals([modules_to_save, task_type], [["score"], "SEQ_CLS"]);
    const numbers = [await logits(model), [...await head.score.weight.data()]];

    using file = await SafetensorsFile.open(`${path}/a/adapter_model.safetensors`);
    const bare = [...file.tensors].map(([name, info]) =>
      [name.replace("transformer.", ""), { ...info, data: () => file.readTensor(name) }] as const
    );
    await Deno.mkdir(`${path}/bare`);
    await Deno.copyFile(`${path}/a/adapter_config.json`, `${path}/bare/adapter_config.json`);
    await writeSafetensors(`${path}/bare/adapter_model.safetensors`, bare);
    for (const folder of ["a", "bare"]) {
      using again = newModel(device), other = new SequenceClassifier(again, 3, { initialize: false });
      await loadAdapter(`${path}/${folder}`, again, { head: other });
      assertEquals([await logits(again), [...await other.score.weight.data()]], numbers);
      const plain = newModel(device);
      await assertRejects(
        () => loadAdapter(`${path}/${folder}`, plain),
        CheckpointError,
        "was trained with a classifier's head, score, and cannot be loaded without such a head",
      );
      plain.dispose();
    }
    device.close();
  }));
