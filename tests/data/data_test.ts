import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { grammarCorpus, grammarEntropy } from "../../data/grammar/grammar.ts";
import { downloadOnce, type KnownFile } from "../../src/data/download.ts";
import { batchAt, getBatch, identify, loadText, readText, splitTokens } from "../../src/data/mod.ts";
import { CheckpointError, ConfigError, DataError } from "../../src/errors.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import golden from "../golden/random.json" with { type: "json" };
import { inFolder } from "../testing.ts";

/** A file that `fetch` finds without a network, as a data URL. */
async function knownFile(contents: string): Promise<KnownFile> {
  const bytes = new TextEncoder().encode(contents);
  const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
  return { name: "play.txt", url: `data:text/plain,${encodeURIComponent(contents)}`, bytes: bytes.length, sha256 };
}

/** A file that `fetch` cannot find. */
const missing: KnownFile = { name: "play.txt", url: "data:", bytes: 3, sha256: "" };

Deno.test("character ids follow the order of code points, and decode to the text", () => {
  const text = "b😀a\n\u{10ffff}é!a";
  const tokenizer = CharacterTokenizer.fromText(text);
  assertEquals(tokenizer.characters, ["\n", "!", "a", "b", "é", "😀", "\u{10ffff}"]);
  assertEquals(tokenizer.vocabSize, 7);
  assertEquals([...tokenizer.encode(text)], [3, 5, 2, 0, 6, 4, 1, 2]);
  assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
  assertEquals(tokenizer.decode([]), "");
  const again = CharacterTokenizer.fromJSON(JSON.parse(JSON.stringify(tokenizer)));
  assertEquals(again.characters, tokenizer.characters);
});

Deno.test("an error names a character or id outside the vocabulary", () => {
  const tokenizer = CharacterTokenizer.fromText("abc");
  const error = assertThrows(() => tokenizer.encode("a\tß😀ß"), DataError);
  assertEquals(error.message, 'Not in the vocabulary of 3 characters: "\\t", "ß", "😀"');
  assertStringIncludes(assertThrows(() => tokenizer.encode("0123456789"), DataError).message, '"7" and 2 more');
  assertThrows(() => tokenizer.decode([0, 3]), DataError, "Token 3 is outside the vocabulary of 3");
  assertThrows(() => tokenizer.decode([-1]), DataError, "Token -1");
});

Deno.test("a damaged vocabulary is rejected", () => {
  for (const json of [null, 3, {}, { type: "bpe" }, { type: "character", characters: "" }]) {
    assertThrows(() => CharacterTokenizer.fromJSON(json), CheckpointError, "Not a vocabulary");
  }
  assertThrows(() => CharacterTokenizer.fromJSON({ type: "character", characters: "aba" }), CheckpointError);
});

Deno.test("the text is split at 90 % of its code points", () => {
  // int(11 * 0.9) is 9: the tenth and eleventh code points are held out, though each emoji is two units of a string.
  const text = "😀bcdefghi😀k", tokenizer = CharacterTokenizer.fromText(text);
  const { train, val } = splitTokens(text, tokenizer, { blockSize: 1 });
  assertEquals(tokenizer.decode(train), "😀bcdefghi");
  assertEquals(tokenizer.decode(val), "😀k");
});

Deno.test("a text too short for a block is rejected, and a text of the length in the message is long enough", () => {
  for (const blockSize of [1, 2, 7, 64, 256]) {
    const text = (n: number) => "ab".repeat(n).slice(0, n), tokenizer = CharacterTokenizer.fromText("ab");
    const enough = 10 * blockSize + 1;
    const message = assertThrows(() => splitTokens(text(enough - 1), tokenizer, { blockSize }), DataError).message;
    assertStringIncludes(message, `needs at least ${enough}, because`);
    assertStringIncludes(message, `it has ${enough - 1}`);
    assertEquals(splitTokens(text(enough), tokenizer, { blockSize }).val.length, blockSize + 1);
  }
});

Deno.test("batches start at nanoGPT's offsets, and can be made again from their offsets", () => {
  const { tokens, block: blockSize, rows: batchSize, offsets: expected } = golden.batches;
  const data = Int32Array.from({ length: tokens }, (_, i) => i), generator = new RandomGenerator(1337);
  for (const starts of expected) {
    const { x, y, offsets } = getBatch(data, { blockSize, batchSize, generator });
    assertEquals(offsets, starts);
    assertEquals([...x], starts.flatMap((start) => Array.from({ length: blockSize }, (_, i) => start + i)));
    assertEquals(y, x.map((id) => id + 1));
    assertEquals(batchAt(data, offsets, { blockSize }), { x, y, offsets });
  }
});

Deno.test("a batch needs one token more than a block, and can reach the last token", () => {
  const data = Int32Array.of(5, 6, 7, 8), generator = new RandomGenerator(0);
  const batch = getBatch(data, { blockSize: 3, batchSize: 2, generator });
  assertEquals(batch, { x: Int32Array.of(5, 6, 7, 5, 6, 7), y: Int32Array.of(6, 7, 8, 6, 7, 8), offsets: [0, 0] });
  assertThrows(() => getBatch(data, { blockSize: 4, batchSize: 2, generator }), DataError, "more than 4 tokens");
  for (const start of [-1, 1, 0.5, NaN]) {
    assertThrows(() => batchAt(data, [start], { blockSize: 3 }), DataError, `at ${start}`);
  }
});

Deno.test("a text file is read as in Python", () =>
  inFolder(async (folder) => {
    const path = `${folder}/text.txt`;
    await Deno.writeTextFile(path, "\ufeffone\r\ntwo\rthree\n\r\n");
    assertEquals(await readText(path), "one\ntwo\nthree\n\n", "without the byte-order mark");
    assertEquals(await loadText({ input: path }), { text: "one\ntwo\nthree\n\n", source: path });
    await Deno.writeTextFile(path, "one\ufefftwo");
    assertEquals(await readText(path), "one\ufefftwo", "elsewhere it is a character");
  }));

Deno.test("a file that is not a text is rejected with the reason", () =>
  inFolder(async (folder) => {
    const refused = async (path: string, reason: string) => {
      const { message } = await assertRejects(() => loadText({ input: path }), DataError);
      assertStringIncludes(message, reason);
      assertStringIncludes(message, path);
    };
    const file = async (...bytes: number[]) => {
      await Deno.writeFile(`${folder}/bytes`, Uint8Array.from(bytes));
      return `${folder}/bytes`;
    };
    await refused(`${folder}/none.txt`, `Cannot read ${folder}/none.txt: no such file or folder`);
    await refused(folder, "is a folder");
    await refused(await file(), "is empty");
    await refused(await file(0xef, 0xbb, 0xbf), "is empty");
    await refused(await file(0xef, 0xbb, 0xbf, 0x61, 0xff), "near byte 4");
    await refused(await file(0x61, 0x62, 0xff, 0x63), "near byte 2");
    await refused(await file(0xc3, 0xa9, 0xef, 0xbf), "near byte 4"); // the file ends inside a character
  }));

Deno.test("a download is verified and cached, and later calls read it from the cache", () =>
  inFolder(async (folder) => {
    const contents = "First Citizen:\r\nSpeak.\n", file = await knownFile(contents), cacheFolder = `${folder}/a/b`;
    const notes: string[] = [], options = { cacheFolder, onNote: (line: string) => notes.push(line) };
    const loaded = await loadText({ ...options, shakespeare: file });
    assertEquals(loaded, { text: "First Citizen:\nSpeak.\n", source: "tiny Shakespeare" });
    assertStringIncludes(notes.join("\n"), `(${file.bytes} bytes) to ${cacheFolder}`);
    assertEquals(await Array.fromAsync(Deno.readDir(cacheFolder), ({ name }) => name), ["play.txt"]);
    // The file is in the cache now, so the network is not needed any more.
    const offline = { ...file, url: missing.url };
    assertEquals(await loadText({ ...options, dataset: "shakespeare", shakespeare: offline }), loaded);
    assertEquals(notes.length, 1);
    // A damaged copy of the same length is downloaded again.
    await Deno.writeTextFile(`${cacheFolder}/play.txt`, contents.replace("Speak", "Sneak"));
    assertEquals(await loadText({ ...options, shakespeare: file }), loaded);
    assertEquals(await Deno.readTextFile(`${cacheFolder}/play.txt`), contents);
  }));

Deno.test("a download with other contents is neither used nor cached", () =>
  inFolder(async (folder) => {
    const file = await knownFile("A play.");
    for (const wrong of [{ ...file, bytes: 8 }, { ...file, sha256: file.sha256.replace(/^./, "x") }]) {
      await assertRejects(() => downloadOnce(wrong, folder), Error, "has changed: its SHA-256 or length differs");
    }
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
  }));

Deno.test("the download works without a cache folder", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    const bytes = await downloadOnce(await knownFile("A play."), `${folder}/file/cache`);
    assertEquals(new TextDecoder().decode(bytes), "A play.");
  }));

Deno.test("if no file is given and the download fails, the grammar generates the text, and a note says so", () =>
  inFolder(async (folder) => {
    const notes: string[] = [];
    const loaded = await loadText({ cacheFolder: folder, shakespeare: missing, onNote: (line) => notes.push(line) });
    assertEquals(loaded, { text: grammarCorpus(), source: "the grammar in data/", entropy: grammarEntropy });
    assertEquals(notes.length, 2);
    assertStringIncludes(notes[1], "generated by the grammar");
    assert(!notes[1].includes("\n"));
    assertEquals(await loadText({ dataset: "grammar" }), loaded);
  }));

Deno.test("a named dataset that cannot be downloaded is an error, and no text is generated", () =>
  inFolder(async (folder) => {
    for (const dataset of ["shakespeare_char", "shakespeare"]) {
      const options = { dataset, cacheFolder: folder, shakespeare: missing };
      const { message } = await assertRejects(() => loadText(options), DataError) as Error;
      assertStringIncludes(message, `Cannot download tiny Shakespeare, the dataset ${dataset}: `);
      assertStringIncludes(message, "--dataset=grammar");
    }
  }));

Deno.test("the identity of tokens depends on their number and on each token", () => {
  const tokens = Int32Array.from({ length: 10000 }, (_, i) => i % 65), { length, checksum } = identify(tokens);
  assertEquals(length, 10000);
  assertEquals(identify(tokens.slice()), { length, checksum });
  for (const at of [0, 4095, 4096, 9999]) {
    assertNotEquals(identify(tokens.with(at, 64 - tokens[at] + 65)).checksum, checksum, `token ${at}`);
  }
  assertEquals(identify(Int32Array.of(7)), { length: 1, checksum: fnv(7) });
  assertEquals(identify(Int32Array.of(7, 50256)), { length: 2, checksum: fnv(7, 50256) });
  // A large file is sampled in blocks, which include the first and the last token.
  let read = 0;
  const large = (last: number) => ({
    length: 2 ** 33,
    subarray: (begin: number, end: number) => {
      read += end - begin;
      return Int32Array.from({ length: end - begin }, (_, i) => begin + i === 2 ** 33 - 1 ? last : (begin + i) % 65);
    },
  });
  assertNotEquals(identify(large(1)), identify(large(2)));
  assertEquals(read, 2 * 2 ** 20);
});

/** FNV-1a over 32-bit words, computed with exact integers. */
function fnv(...words: number[]): string {
  const hash = words.reduce((hash, word) => (hash ^ BigInt(word)) * 16777619n % 2n ** 32n, 2166136261n);
  return hash.toString(16).padStart(8, "0");
}

Deno.test("an unknown dataset is rejected, and the message lists the known ones", async () => {
  const { message } = await assertRejects(() => loadText({ dataset: "openwebtext" }), ConfigError);
  assertStringIncludes(
    message,
    'No dataset "openwebtext": there are shakespeare_char, shakespeare, grammar, folders with',
  );
});
