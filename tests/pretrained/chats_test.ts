/** Models that chat: their tokens, template and ends go from format to format, and a pipeline answers messages. */
import { assertEquals } from "@std/assert";
import { saveGguf } from "../../src/checkpoint/gguf_save.ts";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { chatTokenizer } from "../../src/data/mod.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { CharacterTokenizer, loadTokenizer, type Tokenizer } from "../../src/tokenizer/mod.ts";
import { parseTokenizerJson } from "../../src/tokenizer/tokenizer_json.ts";

const device = await createDevice("reference");
const letters = CharacterTokenizer.fromText("abcdefghijklmnopqrstuvwxyz \n");
/** Every letter a token, "ab" merged, and GPT-2's end of text. */
const pairs = parseTokenizerJson({
  added_tokens: [{ id: 29, content: "<|endoftext|>", special: true, lstrip: false, rstrip: false, single_word: false }],
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false },
  model: {
    type: "BPE",
    vocab: Object.fromEntries([..."abcdefghijklmnopqrstuvwxyzĠĊ", "ab"].map((token, id) => [token, id])),
    merges: ["a b"],
  },
}, "pairs");

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const [kind, tokenizer, ends] of [["characters", letters, [29]], ["byte pairs", pairs, [31, 29]]] as const) {
  Deno.test(`${kind}: a chat's tokens, template and end go along in a run, a folder and a GGUF file`, () =>
    inFolder(async (folder) => {
      const before: Tokenizer = tokenizer,
        chat = chatTokenizer(before, "chatml"),
        sizes = { nLayer: 1, nHead: 1, nEmbd: 8 };
      using model = new GPT({ ...sizes, blockSize: 64, vocabSize: before.vocabSize, activation: "gelu_new" }, {
        device,
      });
      model.resizeTokenEmbeddings(chat.vocabSize);
      const run = await RunFolder.create(`${folder}/run`, {
        flags: {},
        model: { ...model.config },
        vocabulary: chat.toJSON(),
      });
      await run.save({ iter: 1, model: sources(model.namedParameters()), optimizer: [], state: {} }, { best: true });
      run[Symbol.dispose]();
      await saveHuggingFace(model, `${folder}/hf`, { tokenizer: chat });
      await saveGguf(`${folder}/model.gguf`, model, { tokenizer: chat });
      const said = JSON.parse(await Deno.readTextFile(`${folder}/hf/generation_config.json`));
      assertEquals([said.eos_token_id].flat(), [...ends]);
      const text = "<|im_start|>user\nabc<|im_end|>\n", ids = [...chat.encode(text, { allowedSpecial: "all" })];
      for (const name of ["run", "hf", "model.gguf"]) {
        const loaded = await loadPretrained(`${folder}/${name}`, { device });
        using template = loaded.chatTemplate!;
        assertEquals(loaded.eosTokenIds, ends, name);
        assertEquals(loaded.model.config.vocabSize, chat.vocabSize);
        assertEquals((await template.endOfTurn(loaded.tokenizer)).ids, ends.slice(0, 1), name);
        assertEquals((await template.encode(loaded.tokenizer, [{ role: "user", content: "abc" }])).ids, ids, name);
        loaded.model.dispose();
      }
      const vocabulary = await loadTokenizer(`${folder}/run`);
      assertEquals(vocabulary.toJSON(), chat.toJSON());
    }));
}
