import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { getBatch } from "../../src/data/batch.ts";
import { openDataFolder } from "../../src/data/data_folder.ts";
import { loadData } from "../../src/data/load_data.ts";
import { prepare, type Prepared, type PrepareOptions, type PrepareProgress } from "../../src/data/prepare.ts";
import { TextFile } from "../../src/data/text_file.ts";
import { TokenFile, type TokenType } from "../../src/data/tokens.ts";
import { CheckpointError, ConfigError, DataError } from "../../src/errors.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { CharacterTokenizer, loadTokenizer, tokenizerFromJSON } from "../../src/tokenizer/mod.ts";
import tiktoken from "../golden/tiktoken_encodings.json" with { type: "json" };
import { inFolder } from "../testing.ts";

const ordinary = { disallowedSpecial: new Set<string>() };
/** About 3 MB of text, which is three ranges, in many scripts, with every kind of line end and without repetitions. */
function manyScripts(): string {
  const generator = new RandomGenerator(3),
    strings = tiktoken.strings.map((text) => text.toWellFormed()),
    parts: string[] = [];
  for (let length = 0; length < 2_400_000; length += parts.at(-1)!.length) {
    parts.push(
      strings[generator.randint(strings.length)] + ["\n", "\r\n", " ", "\n\n"][generator.randint(4)] + parts.length,
    );
  }
  return parts.join("");
}
const text = manyScripts(), read = text.replace(/\r\n?/g, "\n");

async function run(options: PrepareOptions): Promise<{ result?: Prepared; steps: PrepareProgress[] }> {
  const steps: PrepareProgress[] = [], running = prepare(options);
  for (;;) {
    const { done, value } = await running.next();
    if (done) return { result: value, steps };
    steps.push(value);
  }
}

async function ids(path: string, type: TokenType): Promise<number[]> {
  const { buffer } = await Deno.readFile(path);
  return [...type === "uint16" ? new Uint16Array(buffer) : new Uint32Array(buffer)];
}
const names = async (folder: string) => (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();

for (const [name, type] of [["gpt2", "uint16"], ["o200k_base", "uint32"], ["character", "uint16"]] as const) {
  Deno.test(`${name}: a text encoded in ranges has the same ids as the whole text`, () =>
    inFolder(async (folder) => {
      await Deno.writeTextFile(`${folder}/text.txt`, text);
      const tokenizer = name === "character" ? name : await loadTokenizer(name), outDir = `${folder}/data/x`;
      const { result, steps } = await run({ input: `${folder}/text.txt`, outDir, tokenizer, ...ordinary, threads: 2 });
      const own = name === "character" ? CharacterTokenizer.fromText(read) : await loadTokenizer(name);
      // nanoGPT's prepare.py splits at int(0.9 · len(text)), which counts code points.
      const characters = [...read], cut = Math.trunc(characters.length * 0.9);
      const parts = [characters.slice(0, cut), characters.slice(cut)].map((
        part,
      ) => [...own.encode(part.join(""), ordinary)]);
      for (const [i, part] of ["train", "val"].entries()) {
        assert(eq(await ids(`${outDir}/${part}.bin`, type), parts[i]), part);
      }
      assertEquals(result, { train: parts[0].length, val: parts[1].length, vocabSize: own.vocabSize, type });
      assert(
        steps.filter(({ doing }) => doing === "encoding").length >= 4,
      );
      const { done, total } = steps.at(-1)!;
      assertEquals([done, total], [total, new TextEncoder().encode(text).length]);
      const pickles = name === "character" ? ["meta.pkl"] : [];
      assertEquals(await names(outDir), ["meta.json", ...pickles, "train.bin", "val.bin"]);
      if (name === "character") await Deno.remove(`${outDir}/meta.json`); // meta.pkl contains the same tokenizer
      const opened = await openDataFolder(outDir, { blockSize: 8 });
      using train = opened.data.train, _val = opened.data.val;
      assertEquals(JSON.stringify(opened.tokenizer), JSON.stringify(own));
      assertEquals([...train.subarray(100, 140)], parts[0].slice(100, 140));
    }));
}

/** A faster `assertEquals` for a million numbers. */
function eq(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((value, i) => value === b[i]);
}

Deno.test("an interrupted preparation is continued, and a preparation of another text starts again", () =>
  inFolder(async (folder) => {
    const input = `${folder}/text.txt`, outDir = `${folder}/out`, tokenizer = await loadTokenizer("gpt2");
    await Deno.writeTextFile(input, text);
    const options = { input, outDir, tokenizer, ...ordinary, threads: 1 };
    const interrupt = async () => {
      const controller = new AbortController(), running = prepare({ ...options, signal: controller.signal });
      for (let step = await running.next();; step = await running.next()) {
        if (step.done) return assertEquals(step.value, undefined);
        if (step.value.doing === "encoding") controller.abort();
      }
    };
    await interrupt();
    assertEquals(await names(outDir), ["prepare.json", "train.bin.part", "val.bin.part"]);
    const { at, train } = JSON.parse(await Deno.readTextFile(`${outDir}/prepare.json`));
    assert(at > 0 && train > 0);
    // Tokens written after the progress was saved are overwritten.
    await Deno.writeTextFile(`${outDir}/train.bin.part`, "more", { append: true });
    const { result, steps } = await run(options);
    assert(steps.every(({ before, doing }) => before === at && doing === "encoding"));
    assertEquals(result, (await run({ ...options, outDir: `${folder}/whole` })).result);
    for (const name of ["train.bin", "val.bin"]) {
      assert(eq(await ids(`${outDir}/${name}`, "uint16"), await ids(`${folder}/whole/${name}`, "uint16")), name);
    }

    await interrupt();
    assert((await names(outDir)).includes("train.bin"), "the one before is untouched");
    await Deno.writeTextFile(input, "other text\n".repeat(20));
    const other = await run(options);
    assertEquals(other.steps[0], { doing: "counting", done: 220, total: 220, before: 0 });
    assertEquals(await names(outDir), ["meta.json", "train.bin", "val.bin"]);
  }));

Deno.test("a text that cannot be encoded leaves no files", () =>
  inFolder(async (folder) => {
    const input = `${folder}/text.txt`, outDir = `${folder}/out`, tokenizer = await loadTokenizer("gpt2");
    const refused = async (bytes: string | Uint8Array, message: string, options: Partial<PrepareOptions> = {}) => {
      await (typeof bytes === "string" ? Deno.writeTextFile(input, bytes) : Deno.writeFile(input, bytes));
      const error = await assertRejects(() => run({ input, outDir, tokenizer, threads: 1, ...options }), DataError);
      assertStringIncludes(error.message, message);
      assertEquals(await Array.fromAsync(Deno.readDir(outDir)).catch(() => []), []);
    };
    const wrong = new TextEncoder().encode("word ".repeat(300_000));
    wrong[1_200_000] = 0xff;
    await refused(wrong, `${input} is not UTF-8 text: the first wrong byte is near byte 1200000`);
    await refused(wrong, "near byte 1200000", { tokenizer: "character" });
    await refused("some text <|endoftext|> and more", "special token <|endoftext|>");
    await refused("", "is empty");
    await refused("a", "too short");
    await refused("abc", "Cannot read", { input: `${folder}/nowhere` });
    await refused("abc", "is a folder", { input: folder });
    await Deno.writeTextFile(input, "abc def");
    await refused("abc def", "Cannot write to", { outDir: `${input}/out` });
  }));

Deno.test("a text is not cut within an added token with a space in it", () =>
  inFolder(async (folder) => {
    const flags = { special: false, lstrip: false, rstrip: false, single_word: false };
    const vocab = Object.fromEntries([..."atokenĠĊ"].map((letter, id) => [letter, id]));
    const contents = ["a token", "ken\na"],
      added_tokens = contents.map((content, i) => ({ id: 8 + i, content, ...flags }));
    const tokenizer = await tokenizerFromJSON({ type: "bpe", vocab, merges: [], added_tokens });
    const random = new RandomGenerator(5), parts = [...contents, "a", " ", "token", "\r\n", "ken\r\na"];
    const written = Array.from({ length: 2000 }, () => parts[random.randint(parts.length)]).join("");
    const input = `${folder}/text.txt`, whole = [...tokenizer.encode(written.replaceAll("\r\n", "\n"))];
    await Deno.writeTextFile(input, written);
    using file = TextFile.open(input);
    const encoded: number[] = [];
    let cuts = 0;
    for (let begin = 0, end; begin < file.size; begin = end, cuts++) {
      end = file.nextCut(Math.min(begin + 7, file.size), file.size, contents);
      encoded.push(...tokenizer.encode(file.text(begin, end)));
    }
    assert(cuts > 100, `${cuts} cuts`);
    assertEquals(encoded, whole);
    const { result } = await run({ input, outDir: `${folder}/out`, tokenizer, threads: 1 });
    assertEquals(result!.vocabSize, 10);
  }));

Deno.test("only one text at a time can be prepared in a folder", () =>
  inFolder(async (folder) => {
    const tokenizer = await loadTokenizer("gpt2"), outDir = `${folder}/out`;
    await Deno.writeTextFile(`${folder}/a.txt`, "one text\n".repeat(30));
    await Deno.writeTextFile(`${folder}/b.txt`, "another\n".repeat(30));
    const first = prepare({ input: `${folder}/a.txt`, outDir, tokenizer, threads: 1 });
    await first.next();
    const second = { input: `${folder}/b.txt`, outDir, tokenizer, threads: 1 };
    await assertRejects(() => run(second), DataError, `${outDir} is in use by process ${Deno.pid} since`);
    for (let step = await first.next(); !step.done;) step = await first.next();
    assertEquals(tokenizer.decode((await ids(`${outDir}/val.bin`, "uint16")).slice(0, 2)), "one text");
    assertEquals(await names(outDir), ["meta.json", "train.bin", "val.bin"]);
    assertEquals((await run(second)).steps[0].doing, "counting");
  }));

Deno.test("the validation part begins at the same code point as in Python, wherever ranges end", () =>
  inFolder(async (folder) => {
    for (
      const text of ["ab", "a\r\nb\r\nc\r\nd\r\n\r\n", "é😀\r日本\r\n語 x", "\r\r\n\n".repeat(7), "\ufeffabcdefghij"]
    ) {
      // The byte-order mark is not part of the text.
      const bytes = new TextEncoder().encode(text), read = [...text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n")];
      await Deno.writeFile(`${folder}/text`, bytes);
      using file = TextFile.open(`${folder}/text`);
      const counting = file.count({ vocabulary: true });
      let step = await counting.next();
      while (!step.done) step = await counting.next();
      const { characters, cut, vocabulary } = step.value;
      assertEquals(characters, read.length);
      assertEquals(file.text(0, cut), read.slice(0, Math.trunc(read.length * 0.9)).join(""));
      assertEquals(vocabulary, CharacterTokenizer.fromText(read.join("")).characters);
    }
  }));

Deno.test("batches from a file equal batches from the same tokens in memory", () =>
  inFolder((folder) => {
    const memory = Int32Array.from({ length: 5000 }, (_, i) => i * 7919 % 65536);
    Deno.writeFileSync(`${folder}/train.bin`, new Uint8Array(Uint16Array.from(memory).buffer));
    Deno.writeFileSync(`${folder}/wide.bin`, new Uint8Array(memory.buffer));
    using narrow = TokenFile.open(`${folder}/train.bin`),
      wide = TokenFile.open(`${folder}/wide.bin`, { type: "uint32" });
    const batch = (data: TokenFile | Int32Array) =>
      getBatch(data, { blockSize: 32, batchSize: 16, generator: new RandomGenerator(1337) });
    assertEquals(batch(narrow), batch(memory));
    assertEquals(batch(wide), batch(memory));
    Deno.truncateSync(`${folder}/train.bin`, 100);
    assertThrows(() => narrow.subarray(40, 60), DataError, "ends before token 60");
    return Promise.resolve();
  }));

Deno.test("nanoGPT's folders can be opened unchanged, and damaged folders are rejected", () =>
  inFolder(async (folder) => {
    const write = (name: string, ...ids: number[]) =>
      Deno.writeFile(`${folder}/${name}`, new Uint8Array(Uint16Array.from(ids).buffer));
    const open = (blockSize = 2) => openDataFolder(folder, { blockSize });
    const refused = async (message: string, blockSize?: number) => {
      assertStringIncludes((await assertRejects(() => open(blockSize), DataError)).message, message);
    };
    await refused("train.bin: no such file");
    await write("train.bin", 15496, 995, 0, 1);
    await refused("val.bin: no such file");
    await write("val.bin");
    await refused("val.bin is empty");
    await write("val.bin", 15496, 995, 50256);
    {
      const { data, tokenizer, vocabSize } = await open();
      using _train = data.train, val = data.val;
      assertEquals([tokenizer.decode(val.subarray(0, 3)), vocabSize], ["Hello world<|endoftext|>", 50304]);
    }
    await refused("val.bin is too short for block_size=3: it has 3 tokens", 3);
    await Deno.writeFile(`${folder}/val.bin`, new Uint8Array(7));
    await refused("val.bin is damaged: its 7 bytes are not a multiple of 2, the size of a token");
    await write("val.bin", 1, 2, 3);
    for (const meta of [{ vocab_size: 3 }, { vocab_size: 50257, dtype: "int8" }]) {
      const tokenizer = { type: "bpe", encoding: "gpt2" };
      await Deno.writeTextFile(`${folder}/meta.json`, JSON.stringify({ tokenizer, dtype: "uint16", ...meta }));
      await refused("meta.json is damaged: vocab_size is");
    }
    await Deno.writeTextFile(`${folder}/meta.json`, "{}");
    await assertRejects(() => open(), CheckpointError, "Not a vocabulary");
  }));

Deno.test("a dataset is a folder of tokens, or a text, which any tokenizer can encode", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, "some words to read, ".repeat(30));
    const input = `${folder}/text.txt`, tokenizer = await loadTokenizer("gpt2");
    const words = await loadData({ input, tokenizer: "gpt2", blockSize: 4 });
    assertEquals([words.source, words.vocabSize, words.tokenizer], [input, 50304, tokenizer]);
    assertEquals([...words.data.val.subarray(0, 4)], [...tokenizer.encode("some words to read, ").subarray(0, 4)]);
    const characters = await loadData({ input, blockSize: 4 });
    assertEquals(characters.vocabSize, characters.tokenizer.vocabSize);
    await run({ input, outDir: `${folder}/x`, tokenizer, threads: 1 });
    const { data, vocabSize } = await loadData({ dataset: `${folder}/x`, blockSize: 4 });
    using train = data.train as TokenFile, val = data.val as TokenFile;
    assertEquals([train.length, val.length, vocabSize], [words.data.train.length, words.data.val.length, 50304]);
    const other = { dataset: `${folder}/x`, tokenizer: characters.tokenizer, blockSize: 4 };
    await assertRejects(() => loadData(other), DataError, "a tokenizer other than the model's");
    for (const tokenizer of ["o200k_base", "character"]) {
      const message = `tokenizer=${tokenizer}: ${folder}/x was made with a different tokenizer`;
      await assertRejects(() => loadData({ ...other, tokenizer }), ConfigError, message);
    }
    const same = await loadData({ ...other, tokenizer: "gpt2" });
    using _train = same.data.train as TokenFile, _val = same.data.val as TokenFile;
    await assertRejects(() => loadData({ dataset: folder, blockSize: 4 }), DataError, "it has no train.bin");
  }));
