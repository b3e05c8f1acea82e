/** Models saved as GGUF files and loaded again, and models that the format does not support. */
import { assertEquals, assertMatch, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { GgufModel } from "../../src/checkpoint/gguf.ts";
import { saveGguf } from "../../src/checkpoint/gguf_save.ts";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import { ReferenceDevice } from "../../src/device/reference.ts";
import { CheckpointError, ConfigError } from "../../src/errors.ts";
import { GgufFile, type GgufSource, type WritableValue, writeGguf } from "../../src/files/gguf.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { BytePairTokenizer } from "../../src/tokenizer/byte_pair.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { ggufTokenizer, toGgufTokenizer } from "../../src/tokenizer/gguf.ts";
import { loadTokenizer, tokenizerFromJSON } from "../../src/tokenizer/load.ts";
import { CL100K } from "../../src/tokenizer/patterns.ts";
import type { Tokenizer } from "../../src/tokenizer/tokenizer.ts";
import { WordTokenizer } from "../../src/tokenizer/words.ts";
import { inFolder } from "../testing.ts";

const device = new ReferenceDevice(), mixed = new URL("../golden/gguf/mixed.gguf", import.meta.url).pathname;
const tokenizer = CharacterTokenizer.fromText("\n !abcdefgh");
const SMALL = { vocabSize: tokenizer.vocabSize, blockSize: 4, nLayer: 1, nHead: 2, nEmbd: 32 };
const make = (config: Partial<GPTConfig> = {}) => {
  const model = new GPT({ ...SMALL, ...config }, { device });
  for (const [name, { storage, shape }] of model.namedParameters()) { // as F32, because the reference device has F64
    if (shape.length === 1) device.write(storage, Float64Array.from({ length: shape[0] }, (_, i) => name.length + i));
  }
  return model;
};
/** A file's header as maps that can be changed, and its tensors. */
async function opened(path: string) {
  using file = await GgufFile.open(path);
  const tensors = new Map<string, GgufSource>();
  for (const [name, { shape }] of file.tensors) {
    const data = await file.readTensor(name);
    tensors.set(name, { dtype: "F32", shape, data: () => data });
  }
  return { metadata: new Map(file.metadata) as Map<string, WritableValue>, tensors };
}

for (
  const config of [
    {},
    { bias: false },
    { activation: "gelu_new" },
    { tieWordEmbeddings: false, nInner: 48, layerNormEpsilon: 3e-4, vocabSize: 17 },
  ] as const
) {
  Deno.test(`a saved model is loaded unchanged: ${JSON.stringify(config)}`, () =>
    inFolder(async (folder) => {
      const model = make(config), path = `${folder}/model.gguf`;
      await saveGguf(path, model, { tokenizer });
      assertEquals((await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name), ["model.gguf"]);
      const back = await loadPretrained(path, { device });
      assertEquals(back.model.config, model.config);
      assertEquals(back.tokenizer.toJSON(), tokenizer.toJSON());
      const expected = new Map(model.namedParameters());
      for (const [name, parameter] of back.model.namedParameters()) {
        const rounded = Float64Array.from(await expected.get(name)!.data(), Math.fround);
        assertEquals(await parameter.data(), rounded, name);
        expected.delete(name);
      }
      assertEquals(expected.size, 0);
    }));
}

Deno.test("blocks of q8_0 are saved and loaded byte for byte, even blocks that our quantisation does not make", () =>
  inFolder(async (folder) => {
    using cpu = await CpuDevice.create({ threads: 1, guards: true });
    const path = `${folder}/model.gguf`, again = `${folder}/again.gguf`;
    await saveGguf(path, make(), { tokenizer, dtype: "Q8_0" });
    const file = await Deno.readFile(path), model = await GgufModel.open(path);
    const { begin } = model.file.tensors.get("blk.0.ffn_up.weight")!;
    model[Symbol.dispose]();
    file.fill(3, begin + 2, begin + 34); // the first block, whose largest integer is usually 127
    await Deno.writeFile(path, file);
    const { model: read } = await loadPretrained(path, { device: cpu, weights: "q8_0" });
    assertEquals((await read.transformer.h[0].mlp.c_fc.weight.data())[0] !== 0, true);
    await saveGguf(again, read, { tokenizer, dtype: "Q8_0" });
    assertEquals(await Deno.readFile(again), file);
    const { model: wide } = await loadPretrained(path, { device: cpu });
    const [stored, all] = [read, wide].map((model) => new Map(model.namedParameters()));
    for (const [name, weight] of all) assertEquals(await stored.get(name)!.data(), await weight.data(), name);
  }));

Deno.test("a saved file has the biases, types and keys that llama.cpp expects", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`;
    for (const [dtype, file_type] of [["F32", 0], ["F16", 1], ["Q8_0", 7], ["BF16", 32]] as const) {
      await saveGguf(path, make({ bias: false }), { tokenizer, dtype });
      using file = await GgufFile.open(path);
      const said = (key: string) => file.metadata.get(key);
      assertEquals(said("general.file_type"), { type: "uint32", value: file_type });
      assertEquals(said("gpt2.attention.layer_norm_epsilon"), { type: "float32", value: Math.fround(1e-5) });
      assertEquals(said("tokenizer.ggml.merges"), { type: "string", value: [] });
      assertEquals(said("tokenizer.ggml.tokens")!.value, ["Ċ", "Ġ", "!", ..."abcdefgh"]);
      assertEquals(said("tokenizer.ggml.eos_token_id"), { type: "uint32", value: 0 });
      const types = [...file.tensors].map(([name, { dtype }]) => `${name} ${dtype}`);
      const layer = [
        ...["attn_norm.weight F32", "attn_norm.bias F32", `attn_qkv.weight ${dtype}`, "attn_qkv.bias F32"],
        ...[`attn_output.weight ${dtype}`, "attn_output.bias F32", "ffn_norm.weight F32", "ffn_norm.bias F32"],
        ...[`ffn_up.weight ${dtype}`, "ffn_up.bias F32", `ffn_down.weight ${dtype}`, "ffn_down.bias F32"],
      ];
      assertEquals(
        types.sort(),
        [
          ...[
            `token_embd.weight ${dtype}`,
            "position_embd.weight F32",
            "output_norm.weight F32",
            "output_norm.bias F32",
          ],
          ...layer.map((line) => `blk.0.${line}`),
        ].sort(),
      );
      assertEquals([...await file.readTensor("blk.0.attn_qkv.bias")], Array(96).fill(0));
    }
  }));

Deno.test("byte pairs are saved with merges, roles, added tokens, unused ids and the chat template", async () => {
  using file = await GgufModel.open(mixed);
  const read = file.tokenizer() as BytePairTokenizer;
  const text = "the cat sat on the  end, cafés", ids = read.encode(text);
  assertEquals([read.decode(ids), ids.includes(281), read.vocabSize], [text, true, 282]); // two ids are unused
  assertEquals([...read.encode("a<|endoftext|>", { allowedSpecial: "all" })].at(-1), 280);
  const { special_tokens, chat_template } = read.toJSON();
  assertEquals(special_tokens, { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>" });
  assertEquals(chat_template, "{% for m in messages %}{{ m.content }}{% endfor %}");
  const metadata = new Map(toGgufTokenizer(read, 284));
  for (const [key, value] of file.file.metadata) {
    if (key.startsWith("tokenizer.")) assertEquals(metadata.get(key), value as WritableValue, key);
  }
  assertEquals(ggufTokenizer({ path: "", metadata }).toJSON(), read.toJSON());
  assertEquals((await tokenizerFromJSON(read.toJSON())).toJSON(), read.toJSON());
});

Deno.test("a chat template goes from a GGUF file into a Hugging Face folder and back", () =>
  inFolder(async (folder) => {
    const { model, tokenizer } = await loadPretrained(mixed, { device });
    await saveHuggingFace(model, `${folder}/hf`, { tokenizer });
    const file = `${folder}/hf/chat_template.jinja`, read = async () => (await loadTokenizer(`${folder}/hf`)).toJSON();
    assertStringIncludes(await Deno.readTextFile(file), "for m in messages");
    assertEquals((await read()).chat_template, tokenizer.toJSON().chat_template);
    await saveHuggingFace(model, `${folder}/copy`, { vocabularyFrom: `${folder}/hf` });
    assertEquals(await Deno.readTextFile(`${folder}/copy/chat_template.jinja`), await Deno.readTextFile(file));
    // Before transformers 5, tokenizer_config.json had the template, alone or as one of several; the file takes
    // precedence.
    const config = JSON.parse(await Deno.readTextFile(`${folder}/hf/tokenizer_config.json`));
    for (
      const chat_template of ["{{ older }}", [{ name: "rag", template: "" }, {
        name: "default",
        template: "{{ older }}",
      }]]
    ) {
      await Deno.writeTextFile(`${folder}/hf/tokenizer_config.json`, JSON.stringify({ ...config, chat_template }));
      assertEquals((await read()).chat_template, tokenizer.toJSON().chat_template);
    }
    await Deno.remove(file);
    assertEquals((await read()).chat_template, "{{ older }}");
  }));

Deno.test("a stored head that equals the embeddings is tied", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`;
    await saveGguf(path, make(), { tokenizer });
    const { metadata, tensors } = await opened(path);
    tensors.set("output.weight", tensors.get("token_embd.weight")!);
    await writeGguf(path, { metadata, tensors });
    using file = await GgufModel.open(path);
    assertEquals(file.config.tieWordEmbeddings, true);
  }));

Deno.test("a model that GGUF does not support is rejected with the reason, and an existing file stays", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`;
    await Deno.writeTextFile(path, "before");
    const cases: [Partial<GPTConfig>, Tokenizer, RegExp, "F32" | "Q8_0"][] = [
      [{}, CharacterTokenizer.fromText("aé\u{1f600}\u200b"), /"é"; "\\u\{200b\}"; "😀" take several/, "F32"],
      [{}, new WordTokenizer({ words: ["C4", "D4"] }), /ASCII characters or of byte pairs/, "F32"],
      [{}, new BytePairTokenizer({ tokens: ["a"], pattern: CL100K, special: new Map(), json: {} }), /GPT-2's/, "F32"],
      [{ vocabSize: 10 }, tokenizer, /there are 11 tokens, but 10 rows/, "F32"],
      [{ activation: "relu" }, tokenizer, /has the activation GELU, not relu/, "F32"],
      [{ nEmbd: 48 }, tokenizer, /q8_0 has blocks of 32 weights, but nEmbd=48/, "Q8_0"],
      [{ nInner: 100 }, tokenizer, /nInner=100/, "Q8_0"],
    ];
    for (const [config, tokenizer, message, dtype] of cases) {
      const error = await assertRejects(() => saveGguf(path, make(config), { tokenizer, dtype }), ConfigError);
      assertMatch(error.message, message);
    }
    const model = make(), weight = model.transformer.h[0].mlp.c_fc.weight;
    for (const [dtype, value] of [["F16", 7e4], ["Q8_0", 9e6]] as const) {
      device.write(weight.storage, new Float64Array(weight.size).fill(value));
      const error = await assertRejects(() => saveGguf(path, model, { tokenizer, dtype }), CheckpointError);
      assertStringIncludes(error.message, `c_fc.weight has the weight ${value}, which is too large for ${dtype}`);
    }
    assertEquals(await Deno.readTextFile(path), "before");
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 1);
  }));

Deno.test("a file of another model, or with contradictory values, is rejected with the reason", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`;
    await saveGguf(path, make({ bias: false }), { tokenizer });
    const { metadata, tensors } = await opened(path), uint = (value: number) => ({ type: "uint32", value }) as const;
    const text = (value: string | string[]) => ({ type: "string", value }) as const;
    const ggml = "tokenizer.ggml.", heads = "gpt2.attention.head_count", epsilon = "gpt2.attention.layer_norm_epsilon";
    const cases: [key: string, value: WritableValue | undefined, message: string][] = [
      ["general.architecture", text("llama"), "general.architecture is llama, but only gpt2 is supported"],
      ["general.architecture", undefined, "general.architecture is none"],
      ["gpt2.block_count", uint(0), "gpt2.block_count is 0, expected a whole number from 1 to"],
      ["gpt2.block_count", uint(2), "no blk.1.attn_norm.weight"],
      ["gpt2.block_count", uint(2 ** 31), "gpt2.block_count is 2147483648"],
      ["gpt2.embedding_length", uint(64), "is [11,32], expected [11,64]"],
      ["gpt2.context_length", undefined, "gpt2.context_length is undefined"],
      [heads, uint(3), "gpt2.attention.head_count is 3, expected a divisor of embedding_length, 32"],
      [`${heads}_kv`, uint(1), "head_count_kv is 1, expected 2"],
      [epsilon, { type: "float32", value: 0 }, "layer_norm_epsilon is 0"],
      ["nanogpt.activation", text("swish"), "nanogpt.activation is swish, expected gelu or"],
      ["nanogpt.activation", text("toString"), "nanogpt.activation is toString"],
      ["nanogpt.bias", uint(1), "nanogpt.bias is 1, expected true or false"],
      [`${ggml}model`, text("llama"), "tokenizer.ggml.model is llama; supported is gpt2"],
      [`${ggml}pre`, text("llama-bpe"), "tokenizer.ggml.pre is llama-bpe; supported is gpt-2"],
      [`${ggml}merges`, undefined, "has no tokenizer: tokenizer.ggml.merges is not a list of strings"],
      [`${ggml}merges`, text(["a b"]), 'needs "ab"'],
      [`${ggml}tokens`, text([..."abcdefghij"]), "token_type is not a list of 10 types, one per token"],
      [`${ggml}tokens`, text([..."abcdefghija"]), 'two tokens are "a"'],
      [`${ggml}token_type`, { type: "int32", value: Array(11).fill(6) }, "has the type 6"],
      [`${ggml}add_bos_token`, { type: "bool", value: true }, "add_bos_token is true"],
    ];
    for (const [key, value, message] of cases) {
      const changed = new Map(metadata);
      if (value) changed.set(key, value);
      else changed.delete(key);
      await writeGguf(path, { metadata: changed, tensors });
      const error = await assertRejects(() => loadPretrained(path, { device }), CheckpointError);
      assertStringIncludes(error.message, message);
      assertEquals(error.message.startsWith(path), true, error.message);
    }
    const fewer = new Map(metadata).set(`${ggml}tokens`, text([..."abcdefghij"])).set(`${ggml}eos_token_id`, uint(10));
    fewer.delete(`${ggml}token_type`);
    await writeGguf(path, { metadata: fewer, tensors });
    await assertRejects(
      () => loadPretrained(path, { device }),
      CheckpointError,
      "10 tokens, but token_embd.weight has 11 rows",
    );

    const weight = (length: number, value = 0) =>
      ({ dtype: "F32", shape: [length], data: () => new Float32Array(length).fill(value) }) as const;
    const changes: [name: string, tensor: GgufSource | undefined, message: string][] = [
      ["blk.0.ffn_up.bias", weight(128, 1), "nanogpt.bias is false, but blk.0.ffn_up.bias is not all zeros"],
      ["blk.0.ffn_up.bias", undefined, "no blk.0.ffn_up.bias"],
      ["blk.1.ffn_up.bias", weight(128), "has more layers than its config says"],
      ["output_norm.weight", weight(32, NaN), "output_norm.weight has NaN as element 0"],
    ];
    for (const [name, tensor, message] of changes) {
      const changed = new Map(tensors);
      if (tensor) changed.set(name, tensor);
      else changed.delete(name);
      await writeGguf(path, { metadata, tensors: changed });
      await assertRejects(() => loadPretrained(path, { device }), CheckpointError, message);
    }
    const notes: string[] = [];
    await writeGguf(path, { metadata, tensors: new Map(tensors).set("rope_freqs.weight", weight(4)) });
    (await loadPretrained(path, { device, onNote: (line) => notes.push(line) })).model.dispose();
    assertEquals(notes, [`${path}: tensors that the model does not use are ignored: rope_freqs.weight`]);
  }));

Deno.test("a model in q8_0 cannot be trained", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model.gguf`;
    await saveGguf(path, make(), { tokenizer, dtype: "Q8_0" });
    const { message } = await assertRejects(() => loadPretrained(path, { device, trainable: true }), ConfigError);
    assertStringIncludes(message, "is in q8_0 (token_embd.weight)");
    assertStringIncludes(message, "\nUse f32");
    (await loadPretrained(path, { device })).model.dispose();
    await saveGguf(path, make(), { tokenizer, dtype: "F16" });
    (await loadPretrained(path, { device, trainable: true })).model.dispose();
    using file = await GgufModel.open(mixed);
    assertThrows(() => file.checkTrainable(), ConfigError);
  }));
