/** Folders of transformers: saving them, and rejecting folders that are damaged or belong to another model. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { createFile, type OpenFile } from "../../src/files/files.ts";
import { Lock } from "../../src/files/locks.ts";
import { loadHuggingFace, saveHuggingFace, type SaveHuggingFaceOptions } from "../../src/checkpoint/mod.ts";
import { SafetensorsFile, type TensorSource, writeSafetensors } from "../../src/files/safetensors.ts";
import { openWeightsFolder } from "../../src/files/weights_folder.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import type { Capacity } from "../../src/engine/device.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { f32ToQ8, q8ToF32 } from "../../src/engine/q8_0.ts";
import { CheckpointError, ConfigError, DeviceError } from "../../src/errors.ts";
import { GPT } from "../../src/gpt.ts";
import { BytePairTokenizer } from "../../src/tokenizer/byte_pair.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { loadTokenizer, tokenizerFromJSON } from "../../src/tokenizer/load.ts";
import { specialIds } from "../../src/tokenizer/to_hugging_face.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { assertClose, inFolder } from "../testing.ts";

const saved = new URL("../golden/hugging_face", import.meta.url).pathname;
const device = await CpuDevice.create({ threads: 1, guards: true });

/** A copy of a saved folder, in which `change` can change files. */
async function copyOf(name: string, folder: string): Promise<string> {
  const copy = `${folder}/${name}`;
  await Deno.mkdir(copy);
  for await (const file of Deno.readDir(`${saved}/${name}`)) {
    await Deno.copyFile(`${saved}/${name}/${file.name}`, `${copy}/${file.name}`);
  }
  return copy;
}
const readJson = async (path: string) => JSON.parse(await Deno.readTextFile(path));
async function change(path: string, by: Record<string, unknown>) {
  await Deno.writeTextFile(path, JSON.stringify({ ...await readJson(path), ...by }));
}
/** The types and bytes of all tensors in a folder. */
async function tensorsOf(folder: string): Promise<Map<string, { dtype: string; shape: string; bytes: Uint8Array }>> {
  const tensors = new Map();
  for await (const { name } of Deno.readDir(folder)) {
    if (!name.endsWith(".safetensors")) continue;
    using file = await SafetensorsFile.open(`${folder}/${name}`);
    const bytes = await Deno.readFile(file.path), start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    for (const [tensor, { dtype, shape, begin, end }] of file.tensors) {
      tensors.set(tensor, { dtype, shape: `${shape}`, bytes: bytes.slice(start + begin, start + end) });
    }
  }
  return tensors;
}
const names = async (folder: string) => (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();

for (const on of [device, new ReferenceDevice()]) {
  for (
    const [from, to, options] of [
      ["f32", "f32", {}],
      ["f32", "f16", { dtype: "F16" }],
      ["f32", "bf16_sharded", { dtype: "BF16", maxShardSize: 3000 }],
      ["untied", "untied", {}],
    ] as [string, string, SaveHuggingFaceOptions][]
  ) {
    Deno.test(`a model loaded from ${from} is saved as transformers saves ${to} (${on.name})`, () =>
      inFolder(async (folder) => {
        const model = await loadHuggingFace(`${saved}/${from}`, { device: on }), path = `${folder}/new`;
        await saveHuggingFace(model, path, options);
        const [ours, theirs] = [await tensorsOf(path), await tensorsOf(`${saved}/${to}`)];
        assertEquals([...ours.keys()].sort(), [...theirs.keys()].sort());
        for (const [name, tensor] of ours) assertEquals(tensor, theirs.get(name), name);
        const [config, expected] = await Promise.all(
          [path, `${saved}/${to}`].map((at) => readJson(`${at}/config.json`)),
        );
        for (const [field, value] of Object.entries(config)) {
          if (field !== "n_ctx") assertEquals(value, expected[field], field);
        }
        if (to.endsWith("sharded")) {
          const index = await readJson(`${path}/model.safetensors.index.json`);
          assertEquals(index.metadata, (await readJson(`${saved}/${to}/model.safetensors.index.json`)).metadata);
          assertEquals(Object.keys(index.weight_map).sort(), [...theirs.keys()].sort());
          for (const file of new Set(Object.values(index.weight_map))) {
            // The weights, and up to 3,000 bytes for the header.
            assert((await Deno.stat(`${path}/${file}`)).size < 3000 + 3000);
          }
        } else assertEquals(await names(path), ["config.json", "generation_config.json", "model.safetensors"]);
        model.dispose();
        const again = await loadHuggingFace(path, { device: on });
        assertEquals(again.config, model.config);
        again.dispose();
      }));
  }
}

Deno.test("a model without biases is saved with zeros, and computes the same logits", () =>
  inFolder(async (folder) => {
    const config = { vocabSize: 11, blockSize: 6, nLayer: 1, nHead: 2, nEmbd: 8, bias: false, dropout: 0.25 };
    const model = new GPT(config, { device }), tokens = device.tensor([1, 2, 3, 10], [1, 4], { dtype: "i32" });
    await saveHuggingFace(model, `${folder}/a/b/`);
    const again = await loadHuggingFace(`${folder}/a/b`, { device });
    assertEquals(again.config, { ...model.config, bias: true });
    assertEquals([again.training, await again.transformer.h[0].ln_1.bias!.data()], [false, new Float32Array(8)]);
    const [a, b] = await Promise.all([model.eval(), again].map((gpt) => gpt.forward(tokens).logits.data()));
    assertClose(a, b, { atol: 1e-6, rtol: 1e-6 }, "logits");
    assertEquals((await readJson(`${folder}/a/b/config.json`)).attn_pdrop, 0.25);
    assertEquals((await loadHuggingFace(`${folder}/a/b`, { device, dropout: 0.5 })).config.dropout, 0.5);
  }));

Deno.test("the tokenizer's files are copied with the ids of the tokens that end a text", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/from`);
    for (const file of ["vocab.json", "merges.txt", "README.md"]) {
      await Deno.writeTextFile(`${folder}/from/${file}`, file);
    }
    const model = new GPT({ vocabSize: 50257, blockSize: 2, nLayer: 1, nHead: 1, nEmbd: 1 }, { device });
    await saveHuggingFace(model, `${folder}/to`, { vocabularyFrom: `${folder}/from` });
    const weights = ["config.json", "generation_config.json", "model.safetensors"];
    assertEquals(await names(`${folder}/to`), [...weights, "merges.txt", "vocab.json"].sort());
    assertEquals(await Deno.readTextFile(`${folder}/to/merges.txt`), "merges.txt");
    // The ids are null, because transformers' default, 50256, would be an ordinary token.
    const ids = { bos_token_id: null, eos_token_id: null };
    for (const name of ["config.json", "generation_config.json"]) {
      const json = await readJson(`${folder}/to/${name}`);
      assertEquals([json.bos_token_id, json.eos_token_id, json.pad_token_id], [null, null, undefined]);
    }
    const cases = [
      // The folder's ids are copied, including 0 and lists; missing ids stay missing.
      [{ eos_token_id: 0, pad_token_id: 2 }, { eos_token_id: [0, 3] }, { eos_token_id: 0, pad_token_id: 2 }],
      [{ ...ids, eos_token_id: 7 }, undefined, { ...ids, eos_token_id: 7 }],
    ] as const;
    for (const [i, [config, generation, expected]] of cases.entries()) {
      await Deno.writeTextFile(`${folder}/from/config.json`, JSON.stringify(config));
      if (generation) await Deno.writeTextFile(`${folder}/from/generation_config.json`, JSON.stringify(generation));
      else await Deno.remove(`${folder}/from/generation_config.json`);
      await saveHuggingFace(model, `${folder}/to${i}`, { vocabularyFrom: `${folder}/from` });
      const read = async (name: string) =>
        Object.fromEntries(
          Object.entries(await readJson(`${folder}/to${i}/${name}`)).filter(([key]) => /_id$/.test(key)),
        );
      assertEquals(await read("config.json"), expected);
      assertEquals(await read("generation_config.json"), generation ?? expected);
    }
    model.dispose();
  }));

Deno.test("a tokenizer's end of text, padding and other special tokens are saved, also through a run's vocabulary.json", () =>
  inFolder(async (folder) => {
    const model = new GPT({ vocabSize: 7, blockSize: 2, nLayer: 1, nHead: 1, nEmbd: 1 }, { device }),
      from = `${folder}/from`;
    const write = (name: string, json: unknown) => Deno.writeTextFile(`${from}/${name}`, JSON.stringify(json));
    const token = (content: string) => ({ content, lstrip: false, rstrip: false, single_word: false, special: true });
    const config = {
      eos_token: "</s>",
      pad_token: { content: "<pad>" },
      mask_token: "<none>", // not a token of the tokenizer
      additional_special_tokens: ["<tool>", "<none>"],
      added_tokens_decoder: { 0: token("</s>"), 4: token("<pad>"), 5: token("<tool>") },
    };
    await Deno.mkdir(from);
    await Deno.writeTextFile(`${from}/merges.txt`, "#version: 0.2\n");
    await write("vocab.json", { "</s>": 0, a: 1, b: 2, c: 3 });
    await write("tokenizer_config.json", config);
    const roles = { eos_token: "</s>", pad_token: "<pad>", additional_special_tokens: ["<tool>"] };
    const check = async (tokenizer: Tokenizer, to: string) => {
      await saveHuggingFace(model, to, { tokenizer });
      const { tokenizer_class: _, clean_up_tokenization_spaces: __, ...rest } = await readJson(
        `${to}/tokenizer_config.json`,
      );
      assertEquals(rest, roles);
      const { eos_token_id, bos_token_id, pad_token_id } = await readJson(`${to}/generation_config.json`);
      assertEquals([bos_token_id, eos_token_id, pad_token_id], [null, 0, 4]);
    };
    const loaded = await loadTokenizer(from);
    await check(await tokenizerFromJSON(JSON.parse(JSON.stringify(loaded.toJSON()))), `${folder}/vocabulary`);
    // The result is equal if tokenizer.json lacks the tokens that tokenizer_config.json adds.
    await check(await loadTokenizer(`${folder}/vocabulary`), `${folder}/again`);
    const path = `${folder}/again/tokenizer.json`, json = await readJson(path);
    const added_tokens = (json.added_tokens as { content: string }[]).filter(({ content }) => content === "</s>");
    await Deno.writeTextFile(path, JSON.stringify({ ...json, added_tokens }));
    await Deno.copyFile(`${from}/tokenizer_config.json`, `${folder}/again/tokenizer_config.json`);
    await check(await loadTokenizer(`${folder}/again`), `${folder}/third`);
    // A character tokenizer has no end-of-text token; GPT-2's has its own.
    await saveHuggingFace(model, `${folder}/letters`, { tokenizer: CharacterTokenizer.fromText("abcdefg") });
    assertEquals((await readJson(`${folder}/letters/config.json`)).eos_token_id, null);
    assertEquals(specialIds(await loadTokenizer(`${folder}/third`)).eos_token_id, 0);
    const gpt2 = new BytePairTokenizer({
      ...{ tokens: ["a", "<|endoftext|>"], pattern: /./gu, json: {} },
      special: new Map([["<|endoftext|>", 1]]),
    });
    assertEquals(specialIds(gpt2), { bos_token_id: 1, eos_token_id: 1 });
    model.dispose();
  }));

Deno.test("a save that fails at any point leaves nothing", () =>
  inFolder(async (folder) => {
    const model = await loadHuggingFace(`${saved}/f32`, { device });
    let writes = 0, failed = 0;
    for (let limit = 0;; limit++) {
      writes = 0;
      const open: OpenFile = async (path) => {
        const file = await createFile(path);
        return {
          write: (bytes) => {
            if (writes++ === limit) throw new Deno.errors.WriteZero("no space left on device");
            return file.write(bytes);
          },
          sync: () => file.sync(),
          close: () => file.close(),
        };
      };
      const saving = saveHuggingFace(model, `${folder}/new`, { maxShardSize: 6000, open });
      if (await saving.then(() => true, () => false)) break;
      await assertRejects(() => saving, CheckpointError, `Cannot write ${folder}/new: `);
      assertEquals(await names(folder), []);
      failed++;
    }
    assert(failed > 30, `${failed} failures`); // one for the header and one for each tensor of each file
    const lock = await Lock.take(`${folder}/held`, { beside: true }); // as another process
    await assertRejects(() => saveHuggingFace(model, `${folder}/held`), CheckpointError, `held is in use by process`);
    lock[Symbol.dispose]();
    // An existing folder is not overwritten, unless it is empty.
    await assertRejects(() => saveHuggingFace(model, `${folder}/new`), CheckpointError, "already exists");
    await Deno.mkdir(`${folder}/empty`);
    await saveHuggingFace(model, `${folder}/empty`);
    assertEquals(await names(folder), ["empty", "new"]);
    model.dispose();
  }));

Deno.test("weights too large for F16, unknown types and invalid sizes are rejected", () =>
  inFolder(async (folder) => {
    const model = new GPT({ vocabSize: 3, blockSize: 2, nLayer: 1, nHead: 1, nEmbd: 2 }, { device });
    device.write(model.transformer.wpe.weight.storage, [Infinity, 65519, -65520, NaN]);
    const error = await assertRejects(() => saveHuggingFace(model, `${folder}/a`, { dtype: "F16" }), CheckpointError);
    assertEquals(
      error.message,
      "transformer.wpe.weight has the weight -65520, which is too large for F16; save BF16 or F32",
    );
    const save = (options: object) => saveHuggingFace(model, `${folder}/a`, options);
    await assertRejects(() => save({ dtype: "F8" }), ConfigError, "dtype is F8; expected one of F32,F16,BF16");
    await assertRejects(() => save({ maxShardSize: 0 }), ConfigError, "maxShardSize is 0");
    assertEquals(await names(folder), []);
    await save({ dtype: "BF16" });
    model.dispose();
  }));

Deno.test("a config with an unsupported value is rejected, and the message names the field", () =>
  inFolder(async (folder) => {
    const path = await copyOf("f32", folder), original = await Deno.readTextFile(`${path}/config.json`);
    for (
      const [field, value, message] of [
        ["model_type", "gptj", 'model_type is "gptj"; supported: "gpt2"'],
        ["architectures", ["GPT2ForTokenClassification"], "supported: GPT2LMHeadModel or GPT2Model"],
        ["architectures", ["GPT2ForSequenceClassification"], "is a classifier, which cannot generate text"],
        ["architectures", "GPT2LMHeadModel", "supported: "],
        ["activation_function", "silu", 'activation_function is "silu"; supported: gelu'],
        ["activation_function", "toString", "activation_function"],
        ["scale_attn_weights", false, "scale_attn_weights is false; supported: true"],
        ["scale_attn_by_inverse_layer_idx", true, "scale_attn_by_inverse_layer_idx"],
        ["add_cross_attention", true, "add_cross_attention"],
        ["quantization_config", { bits: 4 }, 'quantization_config is {"bits":4}'],
        ["n_layer", 2.5, "n_layer is 2.5; supported: whole numbers from 1 to 2147483647"],
        ["n_head", 5, "n_head is 5; supported: divisors of n_embd, which is 12"],
        ["n_embd", "12", 'n_embd is "12"'],
        ["n_embd", null, "n_embd is null"],
        ["hidden_size", 24, "hidden_size is 24; supported: the value of n_embd"],
        ["n_inner", 0, "n_inner is 0"],
        ["n_positions", 2 ** 40, "n_positions is 1099511627776"],
        ["vocab_size", -1, "vocab_size is -1"],
        ["layer_norm_epsilon", 0, "layer_norm_epsilon is 0"],
        ["attn_pdrop", 1.5, "attn_pdrop is 1.5; supported: numbers from 0 to 1"],
        ["tie_word_embeddings", 1, "tie_word_embeddings is 1; supported: true or false"],
      ] as [string, unknown, string][]
    ) {
      await Deno.writeTextFile(`${path}/config.json`, original);
      await change(`${path}/config.json`, { [field]: value });
      await assertRejects(() => loadHuggingFace(path, { device }), CheckpointError, message);
    }
    await Deno.writeTextFile(`${path}/config.json`, "{}");
    await assertRejects(() => loadHuggingFace(path, { device }), CheckpointError, "has neither");
    await Deno.writeTextFile(`${path}/config.json`, original.slice(0, 100));
    await assertRejects(() => loadHuggingFace(path, { device }), CheckpointError, "is not a JSON object");
    await Deno.remove(`${path}/config.json`);
    await assertRejects(() => loadHuggingFace(path, { device }), CheckpointError, "Cannot read");
  }));

Deno.test("missing fields have GPT2Config's defaults, and transformers' alternative names are accepted", () =>
  inFolder(async (folder) => {
    const path = await copyOf("f32", folder), { config } = await loadHuggingFace(path, { device });
    const { n_positions, n_embd, n_layer, n_head, vocab_size } = await readJson(`${path}/config.json`);
    const aliases = { max_position_embeddings: n_positions, hidden_size: n_embd, num_hidden_layers: n_layer };
    const write = (json: object) => Deno.writeTextFile(`${path}/config.json`, JSON.stringify(json));
    const least = { architectures: ["GPT2Model"], vocab_size, n_positions, n_embd, n_layer, n_head };
    await write(least);
    assertEquals((await loadHuggingFace(path, { device })).config, config);
    await write({ model_type: "gpt2", vocab_size, num_attention_heads: n_head, ...aliases });
    assertEquals((await loadHuggingFace(path, { device })).config, config);
    assertEquals([config.activation, config.dropout, config.nInner], ["gelu_new", 0.1, 48]);
    // Our model has only one dropout: if the three differ, a note says so.
    const notes: string[] = [], onNote = (line: string) => notes.push(line);
    await write({ ...least, embd_pdrop: 0 });
    assertEquals((await loadHuggingFace(path, { device, onNote })).config.dropout, 0);
    assertEquals(notes, [
      `${path}/config.json: resid_pdrop is 0.1, embd_pdrop is 0, attn_pdrop is 0.1; they differ, so all are set to 0`,
    ]);
  }));

/** The tensors of a saved folder, to write them again with changes. */
async function weightsOf(folder: string): Promise<Map<string, TensorSource>> {
  using file = await SafetensorsFile.open(`${folder}/model.safetensors`);
  const weights = new Map<string, TensorSource>();
  for (const [name, { dtype, shape }] of file.tensors) {
    const values = await file.readTensor(name);
    weights.set(name, { dtype, shape, data: () => values });
  }
  return weights;
}

Deno.test("an error or a note names tensors that do not fit the model", () =>
  inFolder(async (folder) => {
    const path = await copyOf("f32", folder), file = `${path}/model.safetensors`;
    const key = "transformer.h.1.mlp.c_fc.weight";
    const refused = async (change: (weights: Map<string, TensorSource>) => void, message: RegExp) => {
      const weights = await weightsOf(`${saved}/f32`), before = device.memory();
      change(weights);
      await writeSafetensors(file, weights);
      const error = await assertRejects(() => loadHuggingFace(path, { device }), CheckpointError);
      assertMatch(error.message, message);
      assert(error.message.startsWith(path));
      const { bytes, tensors } = device.memory();
      assertEquals([bytes, tensors], [before.bytes, before.tensors]);
    };
    const source = (weights: Map<string, TensorSource>, by: Partial<TensorSource>) =>
      weights.set(key, { ...weights.get(key)!, ...by });
    await refused((weights) => weights.delete(key), /: no transformer\.h\.1\.mlp\.c_fc\.weight$/);
    await refused((weights) => weights.clear(), /says n_layer 2, but .* has only 0 tensors/);
    await refused((weights) => {
      for (const name of [...weights.keys()].slice(0, 9)) weights.delete(name);
    }, /: no (transformer\.[\w.]+; ){3}and 6 more$/);
    await refused(
      (weights) => weights.set(key.replace("1", "2"), weights.get(key)!),
      /more layers than its config says/,
    );
    for (const value of [NaN, Infinity]) {
      const values = new Float32Array(576);
      values[500] = value;
      await refused(
        (weights) => source(weights, { data: () => values }),
        /c_fc\.weight has (NaN|Infinity) as element 500/,
      );
    }
    await refused((weights) => source(weights, { shape: [48, 12] }), /c_fc\.weight is \[48,12\], expected \[12,48\]$/);
    await refused((weights) => source(weights, { shape: [576] }), /c_fc\.weight is \[576\], expected \[12,48\]$/);
    await refused(
      (weights) => source(weights, { dtype: "I32" }),
      /c_fc\.weight is I32, expected one of F32, F64, F16, BF16/,
    );
    await refused(
      (weights) => weights.set("wpe.weight", weights.get(key)!),
      /wpe\.weight, which name the same parameter$/,
    );
    // Tensors that are not read may have any type.
    const weights = await weightsOf(`${saved}/f32`);
    weights.set("h.0.attn.bias", { dtype: "U8", shape: [2], data: () => Uint8Array.of(1, 0) });
    const others = ["v_head.weight", "v_head.bias", "transformer.h.1.crossattention.c_attn.weight", "score.weight"];
    for (const name of others) weights.set(name, { dtype: "I8", shape: [2], data: () => Uint8Array.of(1, 0) });
    await writeSafetensors(file, weights);
    const notes: string[] = [], model = await loadHuggingFace(path, { device, onNote: (line) => notes.push(line) });
    const original = await loadHuggingFace(`${saved}/f32`, { device });
    for (const [i, [, weight]] of [...model.namedParameters()].entries()) {
      assertEquals(await weight.data(), await [...original.namedParameters()][i][1].data());
    }
    assertEquals(notes.length, 1);
    assertMatch(notes[0], /tensors that the model does not use are ignored: .*v_head\.weight; .*; and 1 more$/);
    for (const one of [model, original]) one.dispose();
    await Deno.remove(file);
    await assertRejects(
      () => openWeightsFolder(path),
      CheckpointError,
      "there is no model.safetensors or pytorch_model.bin",
    );
  }));

Deno.test("a tied head: one tensor is enough, equal tensors are tied, different tensors are not", () =>
  inFolder(async (folder) => {
    const path = await copyOf("f32", folder), file = `${path}/model.safetensors`;
    const embeddings = "transformer.wte.weight", head = "lm_head.weight", weights = await weightsOf(path);
    const values = await weights.get(embeddings)!.data() as Float32Array, notes: string[] = [];
    const load = async (parts: [string, Float32Array][]) => {
      weights.delete(embeddings);
      const { shape } = { shape: [31, 12] };
      const rest = parts.map(([name, values]) => [name, { dtype: "F32", shape, data: () => values }] as const);
      await writeSafetensors(file, [...weights, ...rest]);
      const model = await loadHuggingFace(path, { device, onNote: (line) => notes.push(line) });
      return { model, wte: await model.transformer.wte.weight.data(), head: await model.lm_head.weight.data() };
    };
    for (const parts of [[head], [embeddings], [embeddings, head]]) {
      const { model, wte } = await load(parts.map((name) => [name, values]));
      assertEquals([model.config.tieWordEmbeddings, model.transformer.wte.weight], [true, model.lm_head.weight]);
      assertEquals(wte, values);
    }
    assertEquals(notes, []);
    const others = values.with(371, 7);
    const apart = await load([[embeddings, values], [head, others]]);
    assertEquals([apart.model.config.tieWordEmbeddings, apart.wte, apart.head], [false, values, others]);
    assertEquals(notes.length, 1);
    await change(`${path}/config.json`, { tie_word_embeddings: false });
    await assertRejects(() => load([[embeddings, values]]), CheckpointError, "no lm_head.weight");
  }));

Deno.test("an index that points outside its folder, or disagrees with its files, is rejected", () =>
  inFolder(async (folder) => {
    const path = await copyOf("bf16_sharded", folder), index = `${path}/model.safetensors.index.json`;
    const { weight_map } = await readJson(index), first = "transformer.h.0.attn.c_attn.bias";
    const [shard, other] = [...new Set<string>(Object.values(weight_map))];
    await Deno.copyFile(`${saved}/f32/model.safetensors`, `${folder}/elsewhere.safetensors`);
    const refused = async (map: unknown, message: string) => {
      await Deno.writeTextFile(index, JSON.stringify({ weight_map: map }));
      await assertRejects(() => loadHuggingFace(path, { device }), CheckpointError, message);
    };
    const tricks = [
      "../elsewhere.safetensors",
      "/etc/passwd",
      "a/b.safetensors",
      "a\\b.safetensors",
      "..",
      "",
      3,
      null,
    ];
    for (const file of [...tricks, "config.json", `${shard}\0`, ".safetensors", "C:x.safetensors"]) {
      await refused({ ...weight_map, [first]: file }, "which is not the name of a weights file in this folder");
    }
    await refused({ ...weight_map, [first]: "none.safetensors" }, `Cannot read ${path}/none.safetensors`);
    await refused({ ...weight_map, [first]: other }, `${other} does not have ${first}`);
    await refused({ ...weight_map, more: shard }, `${shard} does not have more`);
    const { [first]: _, ...rest } = weight_map;
    await refused(rest, `${shard} has ${first}, but the index does not name this file for it`);
    await refused({}, "says n_layer 2");
    await refused([], "it has no weight_map");
    await Deno.writeTextFile(index, "{}");
    await assertRejects(() => loadHuggingFace(path, { device }), CheckpointError, "it has no weight_map");
  }));

Deno.test("weights in bf16 equal the file's if it has bf16, and are rounded otherwise", () =>
  inFolder(async (folder) => {
    const tokens = device.tensor([3, 30, 0, 7, 7], [1, 5], { dtype: "i32" });
    const logits = async (path: string, weights?: "bf16") => {
      const before = device.memory().bytes, model = await loadHuggingFace(path, { device, weights });
      const bytes = device.memory().bytes - before;
      return { bytes, values: await model.forward(tokens).logits.data(), dtype: model.lm_head.weight.dtype };
    };
    const [wide, kept] = [await logits(`${saved}/bf16_sharded`), await logits(`${saved}/bf16_sharded`, "bf16")];
    assertEquals([wide.dtype, kept.dtype], ["f32", "bf16"]);
    assertEquals(kept.values, wide.values);
    // Each matrix is padded to a whole panel of up to 16 rows, which matters in a small model.
    assert(kept.bytes < 0.65 * wide.bytes, `${kept.bytes} of ${wide.bytes} bytes`);
    const model = await loadHuggingFace(`${saved}/f32`, { device, weights: "bf16" });
    await saveHuggingFace(model, `${folder}/rounded`, { dtype: "BF16" });
    const [ours, theirs] = [await tensorsOf(`${folder}/rounded`), await tensorsOf(`${saved}/bf16_sharded`)];
    for (const [name, tensor] of ours) assertEquals(tensor, theirs.get(name), name);
  }));

Deno.test("a model loaded into panels or q8_0 has the same weights as in rows of f32, and is saved unchanged", () =>
  inFolder(async (folder) => {
    using cpu = await CpuDevice.create({ threads: 2, guards: true });
    const config = {
      vocabSize: 31,
      blockSize: 8,
      nLayer: 2,
      nHead: 2,
      nEmbd: 32,
      nInner: 96,
      activation: "gelu_new",
    } as const;
    const written = new GPT(config, { device: cpu, seed: 3 });
    await saveHuggingFace(written, `${folder}/f32`);
    for (
      const { weights, matrix } of [
        { weights: "f32", matrix: (values: Float32Array) => values },
        { weights: "q8_0", matrix: (values: Float32Array) => q8ToF32(f32ToQ8(values)) },
      ] as const
    ) {
      const model = await loadHuggingFace(`${folder}/f32`, { device: cpu, weights, inference: true });
      await saveHuggingFace(model, `${folder}/${weights} again`);
      const again = new Map((await loadHuggingFace(`${folder}/${weights} again`, { device: cpu })).namedParameters());
      const read = new Map(model.namedParameters());
      for (const [name, weight] of written.namedParameters()) {
        const values = await weight.data() as Float32Array, there = read.get(name)!;
        const laid = weight.shape.length === 2 && !name.includes("wpe");
        assertEquals([name, there.storage.panels !== undefined, there.dtype], [name, laid, laid ? weights : "f32"]);
        assertEquals(await there.data(), laid ? matrix(values) : values, name);
        assertEquals(await again.get(name)!.data(), await there.data(), name);
      }
    }
  }));

Deno.test("a model that does not fit into the device's memory is rejected with the sizes, and nothing is created or read", async () => {
  class Small extends ReferenceDevice {
    constructor(readonly room: Capacity) {
      super();
    }
    override get capacity(): Capacity {
      return this.room;
    }
  }
  const refused = async (all: number, one: number, message: RegExp) => {
    const device = new Small({ all, one, limit: "the largest buffer" });
    const used = device.tensor(new Float32Array(128), [128]); // 1 KiB there
    const error = await assertRejects(() => loadHuggingFace(`${saved}/f32`, { device }), DeviceError);
    assertMatch(error.message, message);
    assertEquals([device.memory().tensors, device.memory().reserved], [1, 1024]);
    used.dispose();
  };
  // 4,272 weights of 8 bytes, rounded up per tensor, and a second copy of the 576 weights of the largest matrix.
  await refused(
    40_000,
    40_000,
    /f32 takes 0\.0000\d+ GiB, and the reference device has 0\.0000\d+ GiB, of which 9\.54e-7/,
  );
  await refused(
    1e6,
    4607,
    /f32 takes a buffer of 0\.00000429 GiB, and the largest buffer is 0\.00000429 GiB/,
  );
  const device = new Small({ all: 60_000, one: 4608, limit: "the largest buffer" });
  (await loadHuggingFace(`${saved}/f32`, { device })).dispose();
});

Deno.test("a model whose weights will be loaded draws none, and invalid sizes are rejected", () => {
  const device = new ReferenceDevice(), config = { vocabSize: 3, blockSize: 2, nLayer: 1, nHead: 1, nEmbd: 2 };
  const model = new GPT(config, { device, initialize: false });
  assertEquals(model.numParameters(), new GPT(config, { device }).numParameters());
  for (
    const [field, value, message] of [
      ["activation", "silu", "activation is silu; expected one of gelu, gelu_new, relu"],
      ["nInner", 0, "nInner is 0; expected a whole number above 0"],
      ["layerNormEpsilon", 0, "layerNormEpsilon is 0; expected a number above 0"],
      ["tieWordEmbeddings", 1, "tieWordEmbeddings is 1; expected true or false"],
    ] as [string, unknown, string][]
  ) assertThrows(() => new GPT({ ...config, [field]: value }, { device }), ConfigError, message);
});
