import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { CheckpointError, ConfigError, DataError } from "../../src/errors.ts";
import { mergePairs } from "../../src/tokenizer/merge.ts";
import {
  type BytePairTokenizer,
  CharacterTokenizer,
  loadTokenizer,
  toHuggingFaceTokenizer,
  type Tokenizer,
  tokenizerFromJSON,
} from "../../src/tokenizer/mod.ts";
import { CUT } from "../../src/tokenizer/patterns.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { processorTime } from "../testing.ts";
import huggingFace from "../golden/hugging_face_tokenizers.json" with { type: "json" };
import tiktoken from "../golden/tiktoken_encodings.json" with { type: "json" };

const names = Object.keys(tiktoken.encodings);

/**
 * Byte-pair encoding as in the paper: find the lowest rank among all neighbours, merge the leftmost pair, and repeat.
 */
function mergeSlowly(text: string, ranks: Map<string, number>): string[] {
  const parts = [...text];
  for (;;) {
    const found = parts.slice(1).map((part, i) => ranks.get(parts[i] + part) ?? Infinity), least = Math.min(...found);
    if (least === Infinity) return parts;
    const i = found.indexOf(least);
    parts.splice(i, 2, parts[i] + parts[i + 1]);
  }
}

Deno.test("the lowest rank is merged first, and among equal ranks the leftmost pair", () => {
  const generator = new RandomGenerator(7), letters = "aab", ranks = new Map<string, number>();
  for (let rank = 0; ranks.size < 40; rank++) { // merges of merged tokens
    const made = ["a", "b", ...ranks.keys()], pick = () => made[generator.randint(made.length)];
    const merged = pick() + pick();
    if (!ranks.has(merged)) ranks.set(merged, rank);
  }
  for (let trial = 0; trial < 300; trial++) {
    const text = Array.from({ length: generator.randint(40) }, () => letters[generator.randint(3)]).join("");
    const starts = mergePairs(text.length, (start, _, end) => ranks.get(text.slice(start, end)));
    assertEquals(starts.slice(1).map((end, i) => text.slice(starts[i], end)), mergeSlowly(text, ranks), text);
  }
});

Deno.test("the time for a long run of one letter is not quadratic", async () => {
  const tokenizer = await loadTokenizer("gpt2"), text = "a".repeat(200_000), began = processorTime();
  assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
  assert(processorTime() - began < 5000); // it takes about 0.3 s; a quadratic algorithm would take minutes
});

Deno.test("special tokens are rejected unless they are allowed or encoded as ordinary text", async () => {
  const tokenizer = await loadTokenizer("gpt2") as BytePairTokenizer, text = "a<|endoftext|>b";
  const error = assertThrows(() => tokenizer.encode(text), DataError);
  assertStringIncludes(error.message, "The text contains the special token <|endoftext|>");
  assertEquals([...tokenizer.encode(text, { allowedSpecial: "all" })], [64, 50256, 65]);
  assertEquals([...tokenizer.encode(text, { allowedSpecial: new Set(["<|endoftext|>"]) })], [64, 50256, 65]);
  assertThrows(() => tokenizer.encode(text, { allowedSpecial: new Set(["<|other|>"]) }), DataError);
  const ordinary = tokenizer.encode(text, { disallowedSpecial: new Set() });
  assert(!ordinary.includes(50256));
  assertEquals(tokenizer.decode(ordinary), text);
  // As in tiktoken, any text can be disallowed.
  assertThrows(() => tokenizer.encode("abc", { disallowedSpecial: new Set(["b"]) }), DataError, "special token b");
  assertEquals([...tokenizer.specialTokens], [["<|endoftext|>", 50256]]);
});

Deno.test("an encoding has alternative names and is loaded only once", async () => {
  assertEquals(await loadTokenizer("r50k_base"), await loadTokenizer("gpt2"));
  assertEquals((await loadTokenizer("cl100k")).toJSON(), { type: "bpe", encoding: "cl100k_base" });
  for (const name of names) {
    assert(
      await tokenizerFromJSON(JSON.parse(JSON.stringify(await loadTokenizer(name)))) === await loadTokenizer(name),
    );
  }
});

for (const name of names) {
  Deno.test(`${name}: cutting a text where CUT matches does not change its ids`, async () => {
    const tokenizer = await loadTokenizer(name), ordinary = { disallowedSpecial: new Set<string>() };
    const everywhere = new RegExp(`(?<=${CUT.source})`, "gu");
    let cuts = 0;
    for (let i = 0; i + 1 < tiktoken.strings.length; i++) {
      // Line ends are converted as when a file is read.
      const text = (tiktoken.strings[i] + tiktoken.strings[i + 1]).replace(/\r\n?/g, "\n"),
        whole = tokenizer.encode(text, ordinary);
      for (const { index } of text.matchAll(everywhere)) {
        cuts++;
        const parts = [text.slice(0, index), text.slice(index)].map((part) => [...tokenizer.encode(part, ordinary)]);
        assertEquals(parts.flat(), [...whole], JSON.stringify([text.slice(0, index), text.slice(index)]));
      }
    }
    assert(cuts > 1000, `${cuts} cuts`);
  });

  Deno.test(`${name}: ids are within the vocabulary, and an unused id is decoded as U+FFFD`, async () => {
    const tokenizer = await loadTokenizer(name), outside = [-1, 0.5, NaN, tokenizer.vocabSize, 2 ** 32];
    const gaps = { gpt2: [], cl100k_base: [100256, 100261, 100275], o200k_base: [199998, 200000, 200017] }[name]!;
    const decoder = tokenizer.decoder(), [euro] = tokenizer.encode("€"); // `euro` is the first bytes of "€"
    for (const id of gaps) {
      assertEquals(tokenizer.decode([id, id]), "\ufffd\ufffd", String(id));
      assertEquals(decoder.push(id) + decoder.push(id) + decoder.end(), "\ufffd\ufffd");
      assertEquals(tokenizer.decode([euro, id]), tokenizer.decode([euro]) + "\ufffd");
    }
    for (const id of outside) {
      assertThrows(() => tokenizer.decode([id]), DataError, `Token ${id} is outside the vocabulary`);
      assertThrows(() => tokenizer.decoder().push(id), DataError, `Token ${id}`);
    }
  });
}

Deno.test("decoding a stream of ids never returns a part of a character", async () => {
  const tokenizer = await loadTokenizer("gpt2"), text = "né 😀👍🏽 日本語 \ufeff!", decoder = tokenizer.decoder();
  const parts = Array.from(tokenizer.encode(text), (id) => decoder.push(id));
  assertEquals(parts.join("") + decoder.end(), text);
  assert(parts.includes("") && !parts.join("").includes("\ufffd"));
  const [first] = tokenizer.encode("😀");
  assertEquals([decoder.push(first), decoder.end(), decoder.push(64)], ["", "\ufffd", "a"]);
  const characters = CharacterTokenizer.fromText(text), each = characters.decoder();
  assertEquals(Array.from(characters.encode(text), each.push).join("") + each.end(), text);
  assertThrows(() => each.push(99), DataError, "Token 99");
});

/** A small vocabulary in GPT-2's letters, with merges. */
const vocab = { a: 0, b: 1, c: 2, "Ġ": 3, ab: 4, "Ġab": 5, abc: 6, "<|endoftext|>": 7 };
const merges = ["a b", "Ġ ab", "ab c"];
const flags = { lstrip: false, rstrip: false, single_word: false };
const model = { type: "BPE", vocab, merges };
const tokenizerJson = {
  model,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false },
  added_tokens: [{ id: 7, content: "<|endoftext|>", special: true, ...flags }],
};

async function inFolder(files: Record<string, unknown>, body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, value] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, typeof value === "string" ? value : JSON.stringify(value));
    }
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
const refused = (files: Record<string, unknown>, ...messages: string[]) =>
  inFolder(files, async (folder) => {
    const { message } = await assertRejects(() => loadTokenizer(folder), CheckpointError);
    for (const part of [folder, ...messages]) assertStringIncludes(message, part);
  });

Deno.test("merges are applied in the order of their ranks, and saved with a run", () =>
  inFolder({ "vocab.json": vocab, "merges.txt": `#version: 0.2\n${merges.join("\n")}\n` }, async (folder) => {
    const tokenizer = await loadTokenizer(folder), text = "abc abc<|endoftext|>";
    assertEquals([...tokenizer.encode(text, { allowedSpecial: "all" })], [6, 5, 2, 7]); // the merge of " ab" has a lower rank than "abc"
    await Deno.writeTextFile(`${folder}/vocabulary.json`, JSON.stringify(tokenizer));
    await Deno.remove(`${folder}/vocab.json`);
    const again = await loadTokenizer(folder);
    assertEquals([...again.encode(text, { allowedSpecial: "all" })], [6, 5, 2, 7]);
    assertThrows(() => again.encode(text), DataError, "special token");
    assertThrows(() => again.encode("abd"), DataError, 'No token for byte 100 of "abd"');
  }));

Deno.test("further files in the folder add tokens to vocab.json", () => {
  const config = {
    added_tokens_decoder: {
      8: { content: "<pad>", special: true, ...flags },
      9: { content: "ab ab", special: false, ...flags },
    },
  };
  const files = { "vocab.json": vocab, "merges.txt": merges.join("\r\n"), "tokenizer_config.json": config };
  return inFolder({ ...files, "added_tokens.json": { cc: 10 } }, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    assertEquals(tokenizer.vocabSize, 11);
    assertEquals([...tokenizer.encode("ab ab<pad>cc", { allowedSpecial: "all" })], [9, 8, 10]);
    assertEquals(tokenizer.decode([9, 8, 10]), "ab ab<pad>cc");
  });
});

Deno.test("tokens that no merge makes are special or unreachable, and ids may be unused", async () => {
  // Files as written by ByteLevelBPETokenizer.save_model: transformers encodes <s> as characters unless a file adds it
  // as a token.
  const words = { "<s>": 20, "<mask>": 21, "日本": 23, ...vocab, "<": 24, s: 25, ">": 26, m: 27, k: 28 };
  const files = { "vocab.json": words, "merges.txt": merges.join("\n") };
  await inFolder(files, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    assertEquals([tokenizer.vocabSize, ...tokenizer.encode("<s> abc")], [29, 24, 25, 26, 5, 2]);
    assertEquals(tokenizer.decode([20, 5, 21, 23, 22]), "<s> ab<mask>日本\ufffd");
    const again = await tokenizerFromJSON(JSON.parse(JSON.stringify(tokenizer)));
    assertEquals([again.vocabSize, again.decode([20, 22])], [29, "<s>\ufffd"]);
    assertEquals(await loadHuggingFace(toHuggingFaceTokenizer(tokenizer)), [29, "<s> ab<mask>日本\ufffd"]);
  });
  const named = { "special_tokens_map.json": { bos_token: "<s>", pad_token: "<none>" } };
  const config = { "tokenizer_config.json": { mask_token: { content: "<mask>" }, model_max_length: 1 } };
  await inFolder({ ...files, ...named, ...config }, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    assertEquals([...tokenizer.encode("<s> abc<mask>", { allowedSpecial: "all" })], [20, 5, 2, 21]);
    assertThrows(() => tokenizer.encode("<mask>"), DataError, "special token <mask>");
  });
});

async function loadHuggingFace(files: object): Promise<[number, string]> {
  let seen: [number, string];
  await inFolder({ ...files }, async (folder) => {
    const tokenizer = await loadTokenizer(folder);
    seen = [tokenizer.vocabSize, tokenizer.decode([20, 5, 21, 23, 22])];
  });
  return seen!;
}

Deno.test("merges that do not fit the vocabulary are rejected, and the message names the first", async () => {
  const files = (lines: string[], words: object = vocab) => ({ "vocab.json": words, "merges.txt": lines.join("\n") });
  await refused(files(["a b", "Ġ ab", "ab c", "c a"]), 'merge 4, "c" + "a", needs "ca"');
  await refused(files(["a b", "Ġ ab", "ab d"]), 'merge 3, "ab" + "d", needs "d"');
  await refused(files(["a b", "a b", "Ġ ab", "ab c"]), 'merge 2, "a" + "b", occurs twice');
  await refused(files(["a b", "Ġab"]), 'merge 2 is "Ġab", expected two tokens');
  await refused(files(["a b", "", "ab c"]), 'merge 2 is ""');
  await refused(files(merges, { ...vocab, c: 1 }), "two tokens have the id 1");
  await refused(files(merges, { ...vocab, c: -1 }), 'the id of "c" is -1');
  await refused(files(merges, { ...vocab, c: 2.5 }), 'the id of "c" is 2.5');
  await refused(files(merges, { ...vocab, c: 1e9 }), 'the id of "c" is 1000000000');
  await refused(files(merges, { ...vocab, c: "2" }), "is not an object of tokens and ids");
  await refused(files([...merges, "日 c"], { ...vocab, "日": 8 }), 'the token "日" is not written in GPT-2\'s letters');
  await refused({ "vocab.json": vocab }, "Cannot read", "merges.txt: no such file");
  await refused({ "vocab.json": JSON.stringify(vocab).slice(0, 40), "merges.txt": "" }, "is not a JSON object");
  await refused({ ...files(merges), "tokenizer_config.json": { add_prefix_space: true } }, "add_prefix_space is true");
  await refused({ "other.txt": "" }, "No tokenizer in");
});

Deno.test("an unsupported tokenizer.json is rejected, and the message names the setting", async () => {
  const file = (change: object) => ({ "tokenizer.json": { ...tokenizerJson, ...change } });
  await inFolder(file({}), async (folder) => {
    assertEquals([...(await loadTokenizer(folder)).encode(" abc")], [5, 2]);
  });
  const cases: [change: object, message: string][] = [
    [{ model: undefined }, "it has no model"],
    [{ model: { ...model, type: "WordPiece" } }, 'model.type is "WordPiece"'],
    [{ model: { ...model, type: "Unigram" } }, 'model.type is "Unigram"'],
    [{ model: { ...model, unk_token: "<unk>" } }, 'model.unk_token is "<unk>"'],
    [{ model: { ...model, byte_fallback: true } }, "model.byte_fallback is true"],
    [{ model: { ...model, ignore_merges: true } }, "model.ignore_merges is true"],
    [{ model: { ...model, dropout: 0.1 } }, "model.dropout is 0.1"],
    [{ model: { ...model, merges: "a b" } }, "it has no list of merges"],
    [{ model: { ...model, merges: [["a", "b", "c"]] } }, 'merge 1 is ["a","b","c"], expected two tokens'],
    [{ model: { ...model, vocab: null } }, "is not an object of tokens and ids"],
    [{ normalizer: { type: "NFC" } }, 'normalizer is "NFC"'],
    [{ pre_tokenizer: null }, "pre_tokenizer is null"],
    [{ pre_tokenizer: { type: "Metaspace" } }, 'pre_tokenizer is "Metaspace"'],
    [{ pre_tokenizer: { type: "Sequence", pretokenizers: [] } }, 'pre_tokenizer is "Sequence"'],
    [{ pre_tokenizer: { type: "ByteLevel", add_prefix_space: true } }, "pre_tokenizer.add_prefix_space is true"],
    [
      { pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: false } },
      "pre_tokenizer.use_regex is false",
    ],
    [{ post_processor: { type: "BertProcessing" } }, 'post_processor is "BertProcessing"'],
    [
      { post_processor: { type: "TemplateProcessing", single: [{ SpecialToken: {} }, { Sequence: {} }] } },
      "post_processor",
    ],
    [{ post_processor: { type: "TemplateProcessing", single: [null] } }, "post_processor"],
    [{ decoder: { type: "WordPiece" } }, 'decoder is "WordPiece"'],
    [{ added_tokens: {} }, "added_tokens is not a list"],
    [{ added_tokens: [{ id: 7 }] }, '{"id":7} is not a valid added token'],
    [{ pre_tokenizer: { type: "ByteLevel" } }, "pre_tokenizer.add_prefix_space is null"],
    [
      { added_tokens: [{ id: 7, content: "<|endoftext|>", special: true, lstrip: false }] },
      "is not a valid added token",
    ],
    [{ added_tokens: [{ id: 6, content: "<|endoftext|>", special: true, ...flags }] }, "has the ids 7 and 6"],
    [
      { added_tokens: [{ id: 7, content: "<|endoftext|>", special: true, ...flags, lstrip: true }] },
      '"<|endoftext|>" has lstrip',
    ],
  ];
  for (const [change, message] of cases) await refused(file(change), "tokenizer.json", message);
  await refused({ "tokenizer.json": "[]" }, "is not a JSON object");
});

Deno.test("an unknown tokenizer is rejected, and the message lists the known ones", async () => {
  for (const name of ["gpt3", "", "toString", "/nowhere/at/all"]) {
    const { message } = await assertRejects(() => loadTokenizer(name), ConfigError);
    assertEquals(
      message,
      `No tokenizer ${JSON.stringify(name)}; pass gpt2, cl100k_base, o200k_base, or a folder with a tokenizer`,
    );
  }
  for (
    const json of [null, 3, {}, { type: "bpe" }, { type: "bpe", encoding: "gpt9" }, { type: "bpe", vocab, merges }]
  ) {
    await assertRejects(() => tokenizerFromJSON(json), CheckpointError);
  }
});

Deno.test("a tokenizer saved for transformers is loaded again with the same ids", async () => {
  const small = await tokenizerFromJSON(JSON.parse(JSON.stringify(await savedTokenizer())));
  const characters = CharacterTokenizer.fromText(tiktoken.strings.join("").toWellFormed());
  for (const tokenizer of [await loadTokenizer("gpt2"), small, characters]) {
    await inFolder({ ...toHuggingFaceTokenizer(tokenizer) }, async (folder) => {
      const again = await loadTokenizer(folder), special = { allowedSpecial: "all" } as const;
      assertEquals(again.vocabSize, tokenizer.vocabSize);
      for (const string of tiktoken.strings) {
        const text = string.toWellFormed();
        assertEquals(again.encode(text, special), tokenizer.encode(text, special), JSON.stringify(text));
      }
    });
  }
  const other = await loadTokenizer("cl100k_base");
  assertThrows(() => toHuggingFaceTokenizer(other), ConfigError, "GPT-2's pattern");
});

Deno.test("GPT-2's merges can be recovered from its ranks", async () => {
  const { model } = toHuggingFaceTokenizer(await loadTokenizer("gpt2"))["tokenizer.json"] as {
    model: { vocab: Record<string, number>; merges: string[] };
  };
  // The first entries of GPT-2's merges.txt and vocab.json.
  assertEquals(model.merges.slice(0, 6), ["Ġ t", "Ġ a", "h e", "i n", "r e", "o n"]);
  assertEquals([model.merges.length, Object.keys(model.vocab).length], [50000, 50257]);
  assertEquals([model.vocab["!"], model.vocab["Ġthe"], model.vocab["<|endoftext|>"]], [0, 262, 50256]);
});

/** A tokenizer with added tokens, saved by Hugging Face's libraries. */
async function savedTokenizer(): Promise<Tokenizer> {
  let tokenizer!: Tokenizer;
  await inFolder(huggingFace.cases[1].files, async (folder) => {
    tokenizer = await loadTokenizer(folder);
  });
  return tokenizer;
}
