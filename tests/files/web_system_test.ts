/**
 * The browser's file system, with folders in memory instead of real ones: every file operation that runs and models
 * need. tests/browser tests real folders.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { crc32 } from "node:zlib";
import { createDevice, GPT, loadPretrained, RandomGenerator, Trainer } from "@nanogpt/ts";
import { RunFolder, saveHuggingFace } from "@nanogpt/ts/checkpoint";
import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
import { CheckpointError } from "../../src/errors.ts";
import { tableCrc32 } from "../../src/files/crc32.ts";
import { exists, readBytes, replaceFile } from "../../src/files/files.ts";
import { MemoryFolder } from "../../src/files/memory_folder.ts";
import { codeOf, system, useSystem } from "../../src/files/system.ts";
import { webSystem } from "../../src/files/web_system.ts";
import { zipParts } from "../../src/files/zip_writer.ts";
import { ZipFile } from "../../src/files/zip.ts";

const disk = system;
/** A test in which all file-system calls go to folders in memory. */
function inMemory(name: string, body: (saved: MemoryFolder) => Promise<void>): void {
  Deno.test(`web system: ${name}`, async () => {
    const saved = new MemoryFolder();
    useSystem(webSystem({ saved, export: new MemoryFolder() }));
    try {
      await body(saved);
    } finally {
      useSystem(disk);
    }
  });
}
const codeFrom = async (body: () => Promise<unknown>) => codeOf(await body().catch((error) => error));

inMemory("files and folders can be written, read and removed, and errors have the system's codes", async (saved) => {
  saved.put("from_disk", new Blob(["as it was"]));
  assertEquals(new TextDecoder().decode(await readBytes("saved/from_disk")), "as it was");
  await system.mkdir("saved/a/b", { recursive: true });
  await system.writeTextFile("saved/a/b/lines", "one\n");
  await system.writeTextFile("saved/a/b/lines", "two\n", { append: true });
  await system.copyFile("saved/a/b/lines", "saved/a/copy");
  await system.truncate("saved/a/copy", 4);
  assertEquals(new TextDecoder().decode(await system.readFile("saved/a/copy")), "one\n");
  await replaceFile("saved/a/copy", [new TextEncoder().encode("three")]);
  assertEquals(await Array.fromAsync(system.readDir("saved/a")), [
    { name: "b", isDirectory: true },
    { name: "copy", isDirectory: false },
  ]);
  assertEquals((await system.stat("saved/a/copy")).size, 5);
  assertEquals(await codeFrom(() => system.stat("saved/none")), "ENOENT");
  assertEquals(await codeFrom(() => system.stat("elsewhere/none")), "ENOENT");
  assertEquals(await codeFrom(() => system.stat("saved/a/copy/none")), "ENOTDIR");
  assertEquals(await codeFrom(() => system.readFile("saved/a")), "EISDIR");
  assertEquals(await codeFrom(() => system.mkdir("saved/a")), "EEXIST");
  assertEquals(await codeFrom(() => system.remove("saved/a")), "ENOTEMPTY");
  assertEquals(await codeFrom(() => system.remove("saved", { recursive: true })), "EPERM");
  await system.rename("saved/a", "saved/c");
  assertEquals(await exists("saved/a"), false);
  assertEquals(await exists("saved/c/b/lines"), true);
  await system.remove("saved/c", { recursive: true });
  await assertRejects(() => readBytes("saved/c/copy"), CheckpointError, "saved/c/copy: no such file or folder");
});

inMemory("the error for a full disk says so, and the old files remain", async (saved) => {
  await replaceFile("saved/weights", [new Uint8Array(4)]);
  const getFile = saved.getFileHandle.bind(saved);
  saved.getFileHandle = async (...how) => {
    const file = await getFile(...how), open = file.createSyncAccessHandle.bind(file);
    const flush = () => {
      throw new DOMException("", "QuotaExceededError");
    };
    file.createSyncAccessHandle = async () => ({ ...await open(), flush });
    return file;
  };
  await assertRejects(
    () => replaceFile("saved/weights", [new Uint8Array(8)]),
    CheckpointError,
    "Cannot write saved/weights: the browser's storage for this page is full",
  );
  assertEquals(await Array.fromAsync(system.readDir("saved"), ({ name }) => name), ["weights"]);
  assertEquals((await readBytes("saved/weights")).length, 4);
});

inMemory("a run resumes bit for bit, and can be saved as a Hugging Face folder and loaded", async () => {
  using device = await createDevice("cpu", { threads: 1 });
  const tokenizer = new CharacterTokenizer(["a", "b", "c", "d"]),
    tokens = Int32Array.from({ length: 200 }, (_, i) => i % 4);
  const shape = { vocabSize: 4, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 8, dropout: 0, bias: true };
  const options = { batchSize: 2, gradientAccumulationSteps: 1, evalIters: 1, evalInterval: 5, logInterval: 1 };
  const description = { flags: {}, model: { ...shape }, vocabulary: tokenizer.toJSON() };
  const losses = async (maxIters: number, folder?: RunFolder, resume = false) => {
    const generator = new RandomGenerator(1), model = new GPT(shape, { device, generator });
    using trainer = new Trainer(model, { train: tokens, val: tokens }, { ...options, maxIters, generator, folder });
    if (resume) await trainer.resume();
    const found: number[] = [];
    for await (const event of trainer.run()) if (event.kind === "step") found.push(event.loss);
    return { found, model };
  };
  const whole = (await losses(19)).found;
  const first = await losses(9, await RunFolder.create("saved/run", description));
  const second = await losses(19, await RunFolder.open("saved/run"), true);
  assertEquals([...first.found, ...second.found], whole);
  const lines = new TextDecoder().decode(await readBytes("saved/run/metrics.jsonl")).trim().split("\n");
  assertEquals(lines.map((line) => JSON.parse(line).loss).filter((loss) => loss !== undefined), whole);

  const { model } = await loadPretrained("saved/run", { device, checkpoint: "last" });
  await saveHuggingFace(second.model, "export/model", { tokenizer });
  const { model: again, tokenizer: same } = await loadPretrained("export/model", { device });
  assertEquals(same.toJSON(), tokenizer.toJSON());
  const weights = (of: GPT) => Promise.all([...of.namedParameters()].map(([, tensor]) => tensor.data()));
  assertEquals(await weights(model), await weights(second.model));
  assertEquals((await weights(again))[0], (await weights(model))[0]);
});

inMemory("the checksums of an archive can be computed without zlib", async (saved) => {
  const bytes = crypto.getRandomValues(new Uint8Array(1000));
  assertEquals(tableCrc32(bytes.subarray(300), tableCrc32(bytes.subarray(0, 300))), crc32(bytes));
  assertEquals(tableCrc32(new TextEncoder().encode("123456789")), 0xcbf43926); // the standard check value of CRC-32
  saved.put("a.zip", new Blob(await Array.fromAsync(zipParts([{ name: "a", data: () => bytes }])) as BlobPart[]));
  using zip = await ZipFile.open("saved/a.zip");
  assert(zip.entries.has("a"));
  assertEquals(await zip.read("a"), bytes);
});
