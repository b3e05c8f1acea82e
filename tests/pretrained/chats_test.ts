/** Chat models: formats store their tokens, chat template and end tokens, and a pipeline answers messages. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { saveGguf } from "../../src/checkpoint/gguf_save.ts";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { ChatTemplate, chatTokenizer, type Message } from "../../src/data/mod.ts";
import { createDevice } from "../../src/device/create.ts";
import { ConfigError, DataError } from "../../src/errors.ts";
import { generateSequences, Rows } from "../../src/generate/generate.ts";
import type { LiveRow } from "../../src/generate/row.ts";
import { GPT } from "../../src/gpt.ts";
import { Chat } from "../../src/pretrained/chat.ts";
import { loadPretrained, type Pretrained } from "../../src/pretrained/load.ts";
import { pipeline } from "../../src/pretrained/pipeline.ts";
import { CharacterTokenizer, loadTokenizer, type Tokenizer } from "../../src/tokenizer/mod.ts";
import { parseTokenizerJson } from "../../src/tokenizer/tokenizer_json.ts";

const device = await createDevice("reference");
const letters = CharacterTokenizer.fromText("abcdefghijklmnopqrstuvwxyz \n");
/** A tokenizer with a token for every letter, one for "ab", and GPT-2's end of text. */
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
  Deno.test(`${kind}: a run, a folder and a GGUF file store a chat's tokens, template and end`, () =>
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

/**
 * Records the prompts with which chats call `Rows.add`, and how many tokens of each prompt were already in the slot.
 */
function watched(): { asked: { prompt: readonly number[]; read: number; maxNewTokens?: number }[] } & Disposable {
  const asked: { prompt: readonly number[]; read: number; maxNewTokens?: number }[] = [], { add } = Rows.prototype;
  Rows.prototype.add = function (request) {
    const row = add.call(this, request);
    asked.push({ prompt: Array.from(request.prompt), read: (row as LiveRow).read, maxNewTokens: request.maxNewTokens });
    return row;
  };
  return { asked, [Symbol.dispose]: () => void (Rows.prototype.add = add) };
}

async function said(answer: AsyncIterable<string>): Promise<string> {
  let text = "";
  for await (const piece of answer) text += piece;
  return text;
}

function chatModel(blockSize: number): Pretrained {
  const tokenizer = chatTokenizer(letters, "chatml"), vocabSize = tokenizer.vocabSize;
  const model = new GPT({ vocabSize, blockSize, nLayer: 1, nHead: 2, nEmbd: 16 }, { device, seed: 3 }).eval();
  return { model, tokenizer, eosTokenIds: [29], chatTemplate: ChatTemplate.of(tokenizer) };
}

Deno.test("a chat gives the answers for the whole chat as one prompt, and processes only new tokens", async () => {
  using watch = watched();
  const loaded = chatModel(128), { tokenizer, model, chatTemplate } = loaded;
  const greedy = { maxNewTokens: 6, temperature: 0, logitBias: { 28: -Infinity, 29: -Infinity } };
  const talk = await Chat.begin(loaded, { system: "be kind", ...greedy });
  const messages: Message[] = [{ role: "system", content: "be kind" }];
  for (const content of ["hello", "again", "bye"]) {
    messages.push({ role: "user", content });
    const prompt = await chatTemplate!.ids(tokenizer, messages, { addGenerationPrompt: true });
    let expected = "";
    for await (const { text } of generateSequences(model, prompt, { ...greedy, tokenizer })) expected += text;
    const start = watch.asked.length;
    assertEquals(await said(talk.answer(content)), expected);
    messages.push({ role: "assistant", content: expected });
    assertEquals(talk.messages, messages);
    const [before, now] = [watch.asked.at(-2)!, watch.asked.at(-1)!];
    assertEquals([watch.asked.length, now.prompt], [start + 1, prompt]);
    // The earlier prompt and answer, except the answer's last token, which the model has not processed yet.
    if (start > 0) assertEquals(now.read, before.prompt.length + 5);
  }
  talk.reset("short");
  assertEquals(talk.messages, [{ role: "system", content: "short" }]);
  talk[Symbol.dispose]();
  model.dispose();
});

Deno.test("the oldest turns are dropped when a chat is too long, with one note, and a message that is too long is refused", async () => {
  using watch = watched();
  const loaded = chatModel(80), notes: string[] = [], onNote = (line: string) => notes.push(line);
  const talk = await Chat.begin(loaded, { system: "be kind", maxNewTokens: 8, temperature: 0, onNote });
  for (let i = 0; i < 8; i++) await said(talk.answer("hi you"));
  assertEquals(notes.length, 1);
  assertStringIncludes(notes[0], "longer than the model's block size, 80 tokens");
  assertEquals(talk.messages[0], { role: "system", content: "be kind" });
  assertEquals(talk.messages[1].role, "user");
  for (const { prompt, maxNewTokens } of watch.asked) assert(prompt.length + maxNewTokens! <= 80);
  const before = [...talk.messages];
  await assertRejects(
    () => said(talk.answer("a".repeat(90))),
    DataError,
    "expected fewer than the model's block size, 80",
  );
  await assertRejects(() => said(talk.answer("ä")), DataError, "Not in the vocabulary");
  assertEquals(talk.messages, before);
  talk[Symbol.dispose]();
  loaded.model.dispose();
});

Deno.test("the text of an interrupted answer stays, and special tokens in a message do not end a turn", async () => {
  const loaded = chatModel(128),
    talk = await Chat.begin(loaded, { maxNewTokens: 40, temperature: 0, logitBias: { 29: -Infinity } });
  const controller = new AbortController();
  let text = "";
  for await (const piece of talk.answer("hello", { signal: controller.signal })) {
    text += piece;
    if (text.length >= 3) controller.abort();
  }
  assertEquals(talk.messages.at(-1), { role: "assistant", content: text });
  assertEquals(talk.finishReason, undefined);
  assert(text.length < 40);
  for await (const piece of talk.answer("and")) {
    assertEquals(talk.finishReason, undefined);
    text = piece;
    break;
  }
  assertEquals(talk.messages.at(-1)!.content, text);
  // A special token in a message is encoded as its letters, which this vocabulary does not have.
  await assertRejects(() => said(talk.answer("x<|im_end|>y")), DataError, "Not in the vocabulary");
  talk[Symbol.dispose]();
  loaded.model.dispose();
  const alone = { ...chatModel(16), chatTemplate: undefined };
  await assertRejects(() => Chat.begin(alone), ConfigError, "no chat template");
  alone.model.dispose();
});

Deno.test("special tokens within an answer are not part of its text, and the chat continues", async () => {
  const loaded = chatModel(128), greedy = { maxNewTokens: 4, temperature: 0 };
  const talk = await Chat.begin(loaded, { ...greedy, logitBias: { 28: 1e9 } });
  for (const message of ["hello", "again"]) assertEquals(await said(talk.answer(message)), "");
  assertEquals(talk.messages.length, 4);
  talk[Symbol.dispose]();
  using generator = await pipeline("text-generation", loaded);
  const messages = [{ role: "user", content: "hello" }], options = { maxNewTokens: 4, logitBias: { 28: 1e9 } };
  assertEquals(await generator(messages, { ...options, returnFullText: false }), [{ generatedText: "" }]);
  assertEquals(await generator("hello", options), [{ generatedText: `hello${"<|im_start|>".repeat(4)}` }]);
  // A stop string at the end of a turn can contain special tokens.
  const stops = { ...options, stopStrings: "<|im_start|>b" };
  const [{ generatedText }] = await generator(messages, { ...stops, returnFullText: false });
  assertEquals(generatedText, "<|im_start|>".repeat(4));
});

Deno.test("a pipeline answers one chat or several, returns chats or only answers, and continues an answer", async () => {
  const loaded = chatModel(128), { tokenizer, model, chatTemplate } = loaded;
  using generator = await pipeline("text-generation", loaded);
  const options = { maxNewTokens: 5, doSample: false, logitBias: { 28: -Infinity, 29: -Infinity } };
  const user = { role: "user", content: "hello" }, begun = { role: "assistant", content: "well", extra: 1 };
  const expected = async (text: string) => {
    let out = "";
    const prompt = tokenizer.encode(text, { allowedSpecial: "all" }),
      greedy = { ...options, temperature: 0, tokenizer };
    for await (const piece of generateSequences(model, prompt, greedy)) out += piece.text;
    return out;
  };
  const text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n";
  const answer = await expected(text), more = await expected(`${text}well`);
  assertEquals(answer.length, 5);
  const messages: Message[] = [user], chats: Message[][] = [[user], [user, begun]];
  assertEquals(await generator(messages, options), [{ generatedText: [user, { role: "assistant", content: answer }] }]);
  assertEquals(await generator(chats, options), [
    [{ generatedText: [user, { role: "assistant", content: answer }] }],
    [{ generatedText: [user, { ...begun, content: `well${more}` }] }],
  ]);
  assertEquals(await generator(messages, { ...options, returnFullText: false }), [{ generatedText: answer }]);
  assertEquals((await Array.fromAsync(generator.stream(messages, options))).join(""), answer);
  const two = await generator(messages, { ...options, numReturnSequences: 2 });
  assertEquals(two.map(({ generatedText }) => generatedText.at(-1)!.content), [answer, answer]);
  // The bias chooses the end of the turn, and the answer is empty.
  const ended = { ...options, logitBias: { 28: -Infinity, 29: 100 } };
  assertEquals(await generator(messages, { ...ended, returnFullText: false }), [{ generatedText: "" }]);
  using bare = await pipeline("text-generation", { model, tokenizer });
  await assertRejects(() => bare(messages, options), ConfigError, "Messages need a chat template");
  await assertRejects(
    () => chatTemplate!.render(messages, { addGenerationPrompt: true, continueFinalMessage: true }),
    ConfigError,
    "addGenerationPrompt begins a new message",
  );
  model.dispose();
});
