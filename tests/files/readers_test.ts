/** Every reader of files: overlapping reads, and files that are often downloaded by mistake. */
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { NanoGPTFile } from "../../src/checkpoint/nanogpt.ts";
import { TokenFile } from "../../src/data/tokens.ts";
import { CheckpointError } from "../../src/errors.ts";
import { readJson } from "../../src/files/files.ts";
import { GgufFile } from "../../src/files/gguf.ts";
import { SafetensorsFile, type TensorArray, type WeightsFile } from "../../src/files/safetensors.ts";
import { TorchFile } from "../../src/files/torch_file.ts";
import { openWeightsFolder } from "../../src/files/weights_folder.ts";
import { ZipFile } from "../../src/files/zip.ts";
import { loadTokenizer } from "../../src/tokenizer/load.ts";
import { readMetaPkl } from "../../src/tokenizer/meta_pkl.ts";
import { inFolder } from "../testing.ts";

const golden = new URL("../golden/", import.meta.url).pathname, ckpt = `${golden}torch_files/ckpt.pt`;

const readers: Record<string, () => Promise<WeightsFile>> = {
  SafetensorsFile: () => SafetensorsFile.open(`${golden}torch_files/ckpt.safetensors`),
  TorchFile: () => TorchFile.open(ckpt),
  "TorchFile, deflated": () => TorchFile.open(`${golden}torch_files/deflated.pt`),
  GgufFile: () => GgufFile.open(`${golden}gguf/mixed.gguf`),
  "shards of safetensors": () => openWeightsFolder(`${golden}hugging_face/bf16_sharded`),
};
for (const [name, open] of Object.entries(readers)) {
  Deno.test(`${name}: overlapping reads give the same tensors as reads one after the other`, async () => {
    using one = await open();
    using other = await open();
    const names = [...one.tensors.keys()], expected: TensorArray[] = [];
    for (const name of names) expected.push(await one.readTensor(name));
    // Read each tensor twice, as a whole and in halves from the end: the checksums must not be mixed up.
    const twice = await Promise.all([...names, ...names].map((name) => other.readTensor(name)));
    assertEquals(twice, [...expected, ...expected]);
    const halves = await Promise.all(names.map(async (name, i) => {
      const { length } = expected[i], middle = length >> 1, out = new Float32Array(length);
      if (expected[i] instanceof Int32Array) return expected[i];
      await Promise.all([
        other.readFloats(name, middle, out.subarray(middle)),
        other.readFloats(name, 0, out.subarray(0, middle)),
      ]);
      return out;
    }));
    assertEquals(halves, expected.map((array) => array instanceof Int32Array ? array : Float32Array.from(array)));
  });
}

Deno.test("zip: parts of records can be read at once", async () => {
  using zip = await ZipFile.open(ckpt);
  const names = [...zip.entries.keys()], expected: Uint8Array[] = [];
  for (const name of names) expected.push(await zip.read(name));
  using other = await ZipFile.open(ckpt);
  const read = await Promise.all(names.map(async (name) => {
    const bytes = new Uint8Array(zip.entries.get(name)!.size), middle = bytes.length >> 1;
    const parts = [bytes.subarray(middle), bytes.subarray(0, middle)];
    await Promise.all([
      other.readInto(name, middle, parts[0]),
      other.verify(name),
      other.readInto(name, 0, parts[1]),
    ]);
    return bytes;
  }));
  assertEquals(read, expected);
});

Deno.test("NanoGPTFile: weights and the optimizer's state can be read at once", async () => {
  using file = await NanoGPTFile.open(ckpt);
  const sources = [...file.weights(), ...(await file.optimizer())!.tensors], expected = [];
  for (const [, { data }] of sources) expected.push(await data());
  using other = await NanoGPTFile.open(ckpt);
  const again = [...other.weights(), ...(await other.optimizer())!.tensors];
  assertEquals(await Promise.all(again.map(([, { data }]) => data())), expected);
});

Deno.test("TokenFile: several ranges can be read at once", () =>
  inFolder(async (folder) => {
    await Deno.writeFile(`${folder}/train.bin`, new Uint8Array(Uint16Array.from({ length: 900 }, (_, i) => i).buffer));
    using file = TokenFile.open(`${folder}/train.bin`);
    const read = await Promise.all([800, 0, 400].map((at) => Promise.resolve(file.subarray(at, at + 2))));
    assertEquals(read.map((ids) => [...ids]), [[800, 801], [0, 1], [400, 401]]);
  }));

const POINTER = "version https://git-lfs.github.com/spec/v1\n" +
  "oid sha256:4665a76b13121f9c00b7d0bd0dd0e93d8d2d9c6b1a8b0a2b5ee2a4c2d0b9c1de\nsize 548105171\n";
const PAGES = ["<!DOCTYPE html>\n<html>", "\n<html class=''>", "<?xml version='1.0'?><Error>", "\ufeff<!doctype html>"];

Deno.test("every reader names a Git LFS pointer or a web page that was downloaded instead of a file", () =>
  inFolder(async (folder) => {
    const path = `${folder}/model`,
      refused = async (open: (path: string) => Promise<unknown>, message: RegExp) => {
        const error = await assertRejects(() => open(path), CheckpointError);
        assertMatch(error.message, message);
        assertEquals(error.message.startsWith(path), true, error.message);
      };
    const opens = [
      SafetensorsFile.open,
      TorchFile.open,
      NanoGPTFile.open,
      ZipFile.open,
      GgufFile.open,
      readJson,
      readMetaPkl,
    ];
    for (const open of opens) {
      await Deno.writeTextFile(path, POINTER);
      await refused(open, /is a Git LFS pointer, .*\n.*git lfs pull/);
      for (const page of PAGES) {
        await Deno.writeTextFile(path, page);
        await refused(open, /is a web page, .*\nOn Hugging Face's hub/);
      }
    }
    await Deno.writeTextFile(`${folder}/vocab.json`, "{}");
    await Deno.writeTextFile(`${folder}/merges.txt`, POINTER);
    await assertRejects(() => loadTokenizer(folder), CheckpointError, "merges.txt is a Git LFS pointer");
    await Deno.writeTextFile(`${folder}/tokenizer.json`, PAGES[0]);
    await assertRejects(() => loadTokenizer(folder), CheckpointError, "tokenizer.json is a web page");
    // A file that contains a pointer's text, but not at its beginning, is read.
    await Deno.writeTextFile(path, JSON.stringify({ text: POINTER }));
    assertEquals(await readJson(path), { text: POINTER });
  }));
