import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createFile, exists, type OpenFile } from "../../src/files/files.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { SafetensorsFile, type TensorSource, writeSafetensors } from "../../src/files/safetensors.ts";
import { CheckpointError } from "../../src/errors.ts";
import { inFolder } from "../testing.ts";

const f32 = (...values: number[]): TensorSource => ({
  dtype: "F32",
  shape: [values.length],
  data: () => Float32Array.from(values),
});

/** A handmade safetensors file: a header, and a number of bytes after it. */
function handmade(header: unknown, bytes: number, { length }: { length?: number } = {}): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + bytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  file.set(text, 8);
  return file;
}

Deno.test("safetensors: a written file is read with the same bits", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.safetensors`;
    const tensors: [string, TensorSource][] = [
      ["matrix", { dtype: "F32", shape: [2, 3], data: () => Float32Array.of(0, -0, 1e-45, 3.4e38, Infinity, NaN) }],
      ["scalar", { dtype: "F64", shape: [], data: () => Promise.resolve(Float64Array.of(Math.PI)) }],
      ["empty", { dtype: "F32", shape: [0, 4], data: () => new Float32Array() }],
      ["ids", { dtype: "I32", shape: [2], data: () => Int32Array.of(-1, 2 ** 31 - 1) }],
    ];
    await writeSafetensors(path, tensors, { metadata: { format: "pt" } });
    using file = await SafetensorsFile.open(path);
    assertEquals(file.metadata, { format: "pt" });
    assertEquals([...file.tensors.keys()], ["matrix", "scalar", "empty", "ids"]);
    for (const [name, tensor] of tensors) {
      assertEquals(file.tensors.get(name)!.shape, tensor.shape);
      const read = await file.readTensor(name), written = await tensor.data();
      assertEquals(read.constructor, written.constructor);
      assertEquals(new Uint8Array(read.buffer), new Uint8Array(written.buffer));
    }
    await assertRejects(() => file.readTensor("other"), CheckpointError, "has no tensor other");
  }));

Deno.test("safetensors: 16-bit floats are converted, parts can be read, unsupported types are only listed", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.safetensors`, values = Float32Array.of(1, -2.5, 3e-8, 65504);
    await writeSafetensors(path, [
      ["f32", { dtype: "F32", shape: [2, 2], data: () => values }],
      ["f16", { dtype: "F16", shape: [2, 2], data: () => values }],
      ["bf16", { dtype: "BF16", shape: [2, 2], data: () => Uint16Array.of(0x3f80, 0xc020, 0x3300, 0x4780) }],
      ["f64", { dtype: "F64", shape: [2], data: () => Float64Array.of(0.1, 7) }],
      ["mask", { dtype: "BOOL", shape: [3], data: () => Uint8Array.of(1, 0, 1) }],
      ["packed", { dtype: "F4", shape: [3, 2], data: () => Uint8Array.of(1, 2, 3) }],
      ["ids", { dtype: "I32", shape: [1], data: () => Int32Array.of(5) }],
    ]);
    using file = await SafetensorsFile.open(path);
    const part = async (name: string, begin: number, count: number) => {
      const out = new Float32Array(count + 2);
      await file.readFloats(name, begin, out.subarray(1, count + 1));
      assertEquals([out[0], out[count + 1]], [0, 0]);
      return [...out.subarray(1, count + 1)];
    };
    // 3e-8 is just above 2⁻²⁵, half of F16's smallest value 2⁻²⁴; BF16's 0x3300 is 2⁻²⁵.
    assertEquals([...await file.readTensor("f16")], [1, -2.5, 2 ** -24, 65504]);
    assertEquals([...await file.readTensor("bf16")], [1, -2.5, 2 ** -25, 65536]);
    assertEquals(await part("f32", 1, 3), [...values.subarray(1)]);
    assertEquals(await part("f16", 1, 3), [-2.5, 2 ** -24, 65504]);
    assertEquals(await part("bf16", 2, 1), [2 ** -25]);
    assertEquals(await part("f64", 0, 2), [Math.fround(0.1), 7]);
    const atOnce = await Promise.all(["f16", "f64", "bf16", "f32"].map((name) => file.readTensor(name)));
    assertEquals(atOnce.map((values) => values[0]), [1, 0.1, 1, 1]);
    assertEquals(file.tensors.get("packed"), { dtype: "F4", shape: [3, 2], begin: 51, end: 54 });
    await assertRejects(
      () => file.readTensor("mask"),
      CheckpointError,
      "mask is BOOL; supported are F32, F64, I32, F16, BF16",
    );
    await assertRejects(() => part("f16", 2, 3), CheckpointError, "f16 has no elements 2 to 5, it is [2,2]");
    await assertRejects(() => part("ids", 0, 1), CheckpointError, "ids is I32, expected floating-point numbers");
  }));

Deno.test("safetensors: a written file has exactly the bytes of the format", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.safetensors`;
    await writeSafetensors(path, [["x", f32(1, 2)]]);
    const header = '{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.padEnd(56);
    const expected = [56, 0, 0, 0, 0, 0, 0, 0, ...new TextEncoder().encode(header), 0, 0, 128, 63, 0, 0, 0, 64];
    assertEquals([...await Deno.readFile(path)], expected);
  }));

Deno.test("safetensors: a damaged file is rejected with its name and the reason", async (t) => {
  const x = (changes: object) => ({ x: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...changes } });
  const cases: [string, Uint8Array, RegExp][] = [
    ["shorter than its length", new Uint8Array(5), /is truncated: 5 bytes/],
    ["header cut", handmade(x({}), 8, { length: 1000 }), /is truncated: .* its header ends at 1008/],
    [
      "length absurd",
      handmade(x({}), 8, { length: 2 ** 40 }),
      /is not a safetensors file: a header of 1099511627776 bytes/,
    ],
    ["text", handmade("{x}", 8), /header is not JSON/],
    ["a list", handmade([], 0), /header is not a JSON object/],
    ["tensors cut", handmade(x({}), 7), /is truncated: 7 of 8 bytes/],
    ["bytes left over", handmade(x({}), 9), /1 bytes follow its last tensor/],
    ["unknown type", handmade(x({ dtype: "F7" }), 8), /x has the unknown type F7/],
    ["a type of Object.prototype", handmade(x({ dtype: "toString" }), 8), /x has the unknown type toString/],
    ["no shape", handmade({ x: { dtype: "F32", data_offsets: [0, 8] } }, 8), /x lacks a dtype, a shape or offsets/],
    ["negative axis", handmade(x({ shape: [-1, -2] }), 8), /x lacks/],
    ["fractional offset", handmade(x({ data_offsets: [0.5, 8.5] }), 9), /x lacks/],
    ["shape of other size", handmade(x({ shape: [3] }), 8), /x is F32 \[3\], 12 bytes, but its offsets span 8/],
    ["offsets reversed", handmade(x({ data_offsets: [8, 0] }), 8), /8 bytes, but its offsets span -8/],
    ["overlap", handmade({ ...x({}), y: { dtype: "F32", shape: [1], data_offsets: [4, 8] } }, 8), /y begins at 4/],
    ["gap", handmade(x({ data_offsets: [4, 12] }), 12), /there is a gap between 0 and x at 4/],
    ["metadata", handmade({ __metadata__: { a: 1 } }, 0), /metadata are not strings/],
  ];
  for (const [name, bytes, message] of cases) {
    await t.step(name, () =>
      inFolder(async (folder) => {
        const path = `${folder}/a.safetensors`;
        await Deno.writeFile(path, bytes);
        const error = await assertRejects(() => SafetensorsFile.open(path), CheckpointError);
        assertMatch((error as Error).message, message);
        assert((error as Error).message.startsWith(path));
      }));
  }
  await t.step("missing", async () => {
    await assertRejects(() => SafetensorsFile.open("no/such"), CheckpointError, "Cannot read no/such: no such file");
  });
});

const description = { flags: { batch_size: 12 }, model: { nLayer: 1 }, vocabulary: { chars: "ab" } };
const checkpoint = (iter: number) => ({
  iter,
  model: [["weight", f32(iter, iter + 1)]] as [string, TensorSource][],
  optimizer: [["exp_avg.weight", f32(-iter, 0)]] as [string, TensorSource][],
  state: { iter },
});
/** What a reader gets: the vocabulary, and a checkpoint's state and first weight. */
async function contents(folder: string, which: "last" | "best" = "last"): Promise<unknown> {
  const run = await RunFolder.open(folder), saved = await run.checkpoint(which);
  using model = await SafetensorsFile.open(saved.model);
  using optimizer = await SafetensorsFile.open(saved.optimizer);
  const weights = [...await model.readTensor("weight"), ...await optimizer.readTensor("exp_avg.weight")];
  return { vocabulary: run.description.vocabulary, iter: saved.state.iter, weights };
}
const expected = (iter: number, chars = "ab") => ({
  vocabulary: { chars },
  iter,
  weights: [iter, iter + 1, -iter, 0],
});
/** The folder of a run that has saved once and ended. */
async function saved(folder: string, iter: number): Promise<void> {
  using run = await RunFolder.create(folder, description);
  await run.save(checkpoint(iter), { best: true });
}
const names = async (folder: string) =>
  (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).filter((name) => name !== ".lock").sort();

Deno.test("run folder: all checkpoints except the last and the best are removed", () =>
  inFolder(async (parent) => {
    const folder = `${parent}/out/deep`;
    using run = await RunFolder.create(folder, description);
    assertEquals(await names(folder), ["metrics.jsonl", "run.json", "vocabulary.json"]);
    await assertRejects(
      async () => (await RunFolder.open(folder)).checkpoint("last"),
      CheckpointError,
      "no checkpoint yet",
    );
    for (const [iter, best] of [[250, true], [500, true], [750, false], [1000, false]] as const) {
      await run.save(checkpoint(iter), { best });
    }
    assertEquals(
      await names(folder),
      ["checkpoint-000500", "checkpoint-001000", "metrics.jsonl", "run.json", "vocabulary.json"],
    );
    assertEquals(await contents(folder, "last"), expected(1000));
    assertEquals(await contents(folder, "best"), expected(500));
    const { flags, model, last, best } = JSON.parse(await Deno.readTextFile(`${folder}/run.json`));
    assertEquals({ flags, model }, { flags: description.flags, model: description.model });
    assertEquals([last, best], ["checkpoint-001000", "checkpoint-000500"]);
    await run.save(checkpoint(1000), { best: true }); // the same iteration again
    assertEquals(await contents(folder, "best"), expected(1000));
    assertEquals((await names(folder)).length, 4);

    run[Symbol.dispose]();
    using resumed = await RunFolder.open(folder);
    resumed.flags = { max_iters: 9 };
    await resumed.save(checkpoint(1001), { best: false });
    assertEquals((await RunFolder.open(folder)).description, { ...description, flags: { max_iters: 9 } });
  }));

Deno.test("run folder: the best checkpoint is the last one if none was saved as the best", () =>
  inFolder(async (folder) => {
    using run = await RunFolder.create(folder, description);
    await run.save(checkpoint(7), { best: false });
    assertEquals(await contents(folder, "best"), expected(7));
  }));

/** A file system that counts operations and calls `fail` at each. */
function counted(fail: (operation: number) => Promise<void>): { open: OpenFile; count: () => number } {
  let operations = 0;
  const open: OpenFile = async (path) => {
    await fail(operations++);
    const file = await createFile(path);
    let open = true;
    const close = () => {
      if (open) file.close();
      open = false;
    };
    const step = async (body: () => Promise<unknown>) => {
      try {
        await fail(operations++);
      } catch (error) {
        close();
        throw error;
      }
      await body();
    };
    return {
      write: async (bytes) => {
        const half = bytes.subarray(0, Math.ceil(bytes.length / 2)); // a disk may take less than it is given
        await step(() => file.write(half));
        return half.length;
      },
      sync: () => step(() => file.sync()),
      close,
    };
  };
  return { open, count: () => operations };
}

Deno.test("run folder: a save that fails at any point leaves the previous checkpoint, and the next save succeeds", () =>
  inFolder(async (folder) => {
    const run = await RunFolder.create(folder, description);
    await run.save(checkpoint(1), { best: true });
    run[Symbol.dispose]();
    let failing = 0, failures = 0;
    for (;; failing++) {
      const { open, count } = counted((operation) =>
        operation === failing ? Promise.reject(new Error("No space left on device (os error 28)")) : Promise.resolve()
      );
      using again = await RunFolder.open(folder, { open });
      try {
        await again.save(checkpoint(2), { best: false });
        assert(count() <= failing);
        break;
      } catch (error) {
        failures++;
        assert(error instanceof CheckpointError);
        assertEquals(
          error.message,
          `Cannot save the checkpoint of iteration 2 in ${folder}: No space left on device; checkpoint-000001 is still there`,
        );
        assertEquals([again.last, again.best], ["checkpoint-000001", "checkpoint-000001"]);
      }
      assertEquals(await contents(folder), expected(1));
      assert(!(await names(folder)).includes("checkpoint-000002"), "what was begun takes no room");
    }
    assert(failures > 20, `${failures} operations failed`);
    assertEquals(await contents(folder), expected(2));
    assertEquals(await contents(folder, "best"), expected(1));
  }));

Deno.test(
  "run folder: a process killed anywhere in a save leaves the checkpoint before, and the next save succeeds",
  { sanitizeResources: false }, // a killed process closes no files
  () =>
    inFolder(async (folder) => {
      await saved(folder, 1);
      let killed = true;
      for (let last = 0; killed; last++) {
        killed = false;
        let dead = () => {};
        const death = new Promise<void>((resolve) => dead = resolve);
        // At operation `last` everything stops forever without cleaning up, as after kill -9.
        const { open } = counted((operation) => {
          if (operation < last) return Promise.resolve();
          killed = true;
          dead();
          return new Promise(() => {});
        });
        using run = await RunFolder.open(folder, { open }); // the system releases the lock of a killed process
        await Promise.race([death, run.save(checkpoint(2), { best: true })]);
        if (!killed) break;
        assertEquals(await contents(folder), expected(1));
      }
      assertEquals(await contents(folder, "best"), expected(2));
      assertEquals(await names(folder), ["checkpoint-000002", "metrics.jsonl", "run.json", "vocabulary.json"]);
    }),
);

Deno.test("run folder: a new run in the folder of an older run renames the older run", () =>
  inFolder(async (parent) => {
    const folder = `${parent}/out`, chars = (chars: string) => ({ ...description, vocabulary: { chars } });
    await saved(folder, 3);
    await Deno.writeTextFile(`${folder}/notes.txt`, "mine");
    using run = await RunFolder.create(`${folder}/`, chars("cd"));
    assertEquals(run.renamed, `${folder}.old-1`);
    assertEquals(await contents(`${folder}.old-1`, "best"), expected(3));
    const files = ["checkpoint-000003", "metrics.jsonl", "notes.txt", "run.json", "vocabulary.json"];
    assertEquals(await names(`${folder}.old-1`), files);
    assert(!await exists(`${folder}.old-1/.lock`), "the older folder is locked");
    await assertRejects(() => contents(folder), CheckpointError, "has no checkpoint yet");
    await run.save(checkpoint(3), { best: false });
    assertEquals(await contents(folder, "best"), expected(3, "cd"));
    run[Symbol.dispose]();

    using another = await RunFolder.create(folder, chars("ef"));
    assertEquals(another.renamed, `${folder}.old-2`);
    assertEquals(await contents(`${folder}.old-2`), expected(3, "cd"));
    another[Symbol.dispose]();
    using unsaved = await RunFolder.create(folder, chars("gh")); // a run without a checkpoint is overwritten
    assertEquals(unsaved.renamed, undefined);
    assertEquals(unsaved.description.vocabulary, { chars: "gh" });
    assertEquals(await names(parent), ["out", "out.old-1", "out.old-2"]);
  }));

Deno.test("run folder: a second writer is rejected and the message names the process, but a reader is not", () =>
  inFolder(async (folder) => {
    using run = await RunFolder.create(folder, description);
    await run.save(checkpoint(1), { best: true });
    const inUse = `${folder} is in use by process ${Deno.pid} since ${new Date().getUTCFullYear()}-`;
    using other = await RunFolder.open(folder);
    await assertRejects(() => RunFolder.create(folder, description), CheckpointError, inUse);
    await assertRejects(() => other.save(checkpoint(2), { best: true }), CheckpointError, inUse);
    await assertRejects(() => other.resume(1, { evaluated: false }), CheckpointError, inUse);
    assertEquals(await contents(folder), expected(1));

    await run.save(checkpoint(5), { best: true });
    run[Symbol.dispose]();
    await other.lock();
    assertEquals(other.last, "checkpoint-000005", "what was saved since it was opened");
  }));

Deno.test("run folder: while a run saves, a reader gets the current checkpoint", () =>
  inFolder(async (folder) => {
    using run = await RunFolder.create(folder, description);
    await run.save(checkpoint(1), { best: true });
    const reader = await RunFolder.open(folder);
    await run.save(checkpoint(2), { best: true });
    assertEquals((await reader.checkpoint("best")).name, "checkpoint-000002");
    const seen: string[] = [];
    const weights = await reader.read("last", async ({ name, model }) => {
      seen.push(name);
      if (seen.length === 1) await run.save(checkpoint(3), { best: true }); // between its state and its weights
      using file = await SafetensorsFile.open(model);
      return [...await file.readTensor("weight")];
    });
    assertEquals([seen, weights], [["checkpoint-000002", "checkpoint-000003"], [3, 4]]);
    let calls = 0;
    await assertRejects(() => reader.read("last", () => Promise.reject(new Error(`call ${++calls}`))), Error, "call 1");
  }));

Deno.test("run folder: an error names the last checkpoint only if it is still there", () =>
  inFolder(async (folder) => {
    const full: OpenFile = (path) =>
      /checkpoint-000002/.test(path) ? Promise.reject(new Error("No space left on device")) : createFile(path);
    using run = await RunFolder.create(folder, description, { open: full });
    const fails = async (message: string) => {
      await assertRejects(() => run.save(checkpoint(2), { best: false }), CheckpointError, message);
    };
    await fails("No space left on device; no checkpoint was saved yet");
    await run.save(checkpoint(1), { best: true });
    await fails("; checkpoint-000001 is still there");
    await Deno.remove(`${folder}/checkpoint-000001`, { recursive: true });
    await fails("; checkpoint-000001 has been removed");
  }));

Deno.test("run folder: files that version 0.1.0 committed but did not rename are valid, and uncommitted files are removed", () =>
  inFolder(async (folder) => {
    await saved(folder, 3);
    const begin = async () => {
      await Deno.writeTextFile(`${folder}/vocabulary.json.new`, '{"chars":"cd"}');
      await Deno.writeTextFile(`${folder}/metrics.jsonl.new`, '{"iter":0,"train_loss":8,"val_loss":9}\n');
    };
    const files = ["checkpoint-000003", "metrics.jsonl", "run.json", "vocabulary.json"];
    await begin();
    await Deno.copyFile(`${folder}/run.json`, `${folder}/run.json.new`);
    const description = async () => (await RunFolder.open(folder)).description.vocabulary;
    assertEquals(await description(), { chars: "ab" });
    {
      using run = await RunFolder.open(folder);
      await run.resume(3, { evaluated: true });
    }
    assertEquals([await names(folder), await description()], [files, { chars: "ab" }]);

    await begin();
    assertEquals(await description(), { chars: "cd" });
    using run = await RunFolder.open(folder);
    await run.resume(1, { evaluated: false });
    assertEquals([await names(folder), await description()], [files, { chars: "cd" }]);
    assertEquals(await Deno.readTextFile(`${folder}/metrics.jsonl`), '{"iter":0,"train_loss":8,"val_loss":9}\n');
  }));

Deno.test("run folder: metrics are cut at the resumed iteration", () =>
  inFolder(async (folder) => {
    const step = (iter: number) => ({
      iter,
      loss: 4.174387454986572,
      lr: 1e-3,
      grad_norm: 2,
      ms: 8.5,
      tokens_per_second: 9e4,
    });
    const evaluation = (iter: number) => ({ iter, train_loss: 1 + iter, val_loss: 2 + iter });
    using run = await RunFolder.create(folder, description);
    const lines = [evaluation(0), step(0), step(10), evaluation(20), step(20), step(30)];
    const text = (...kept: object[]) => kept.map((line) => JSON.stringify(line) + "\n").join("");
    const cut = async (iter: number, evaluated: boolean) => {
      await Deno.writeTextFile(run.metricsPath, "");
      for (const line of lines) await run.log(line);
      await Deno.writeTextFile(run.metricsPath, '{"iter":5,"lo', { append: true }); // incomplete, as after kill -9
      await run.resume(iter, { evaluated });
      return await Deno.readTextFile(run.metricsPath);
    };
    assertEquals(await cut(20, true), text(...lines.slice(0, 4)));
    assertEquals(await cut(20, false), text(...lines.slice(0, 3)));
    assertEquals(await cut(11, false), text(...lines.slice(0, 3)));
    assertEquals(await cut(99, false), text(...lines));
    assertEquals(await cut(0, false), "");
  }));

Deno.test("run folder: folders that the run did not write are not removed", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/checkpoint-000002`);
    await Deno.writeTextFile(`${folder}/checkpoint-000002/config.json`, "{}");
    await Deno.mkdir(`${folder}/checkpoint-000001`); // an interrupted save
    await Deno.writeTextFile(`${folder}/checkpoint-000001/model.safetensors`, "half");
    using run = await RunFolder.create(folder, description);
    await run.save(checkpoint(2), { best: true });
    assertEquals(run.last, "checkpoint-000002-2");
    assertEquals(
      await names(folder),
      ["checkpoint-000002", "checkpoint-000002-2", "metrics.jsonl", "run.json", "vocabulary.json"],
    );
  }));

Deno.test("run folder: an error about a missing or damaged file has one line", () =>
  inFolder(async (folder) => {
    const refused = async (body: () => Promise<unknown>, message: RegExp) => {
      const error = await assertRejects(body, CheckpointError);
      assertMatch((error as Error).message, message);
      assert(!(error as Error).message.includes("\n"));
    };
    const open = () => RunFolder.open(folder);
    await refused(open, /^No run in .*: it has no run.json$/);
    await refused(() => RunFolder.open(`${folder}/no/such`), /^No run in .*: there is no such folder$/);
    await saved(folder, 1);
    await Deno.writeTextFile(`${folder}/file`, "");
    await refused(
      () => RunFolder.create(`${folder}/file/out`, description),
      /Cannot write to .*\/file\/out: Not a dir/,
    );
    await refused(() => RunFolder.create(`${folder}/file`, description), /Cannot write to .*\/file: /);

    await Deno.remove(`${folder}/vocabulary.json`);
    await refused(open, /Cannot read .*vocabulary.json: no such file/);
    await Deno.writeTextFile(`${folder}/vocabulary.json`, "[]");
    await refused(open, /vocabulary.json is damaged/);
    await Deno.writeTextFile(`${folder}/vocabulary.json`, "{}");
    await Deno.truncate(`${folder}/checkpoint-000001/state.json`, 3);
    await refused(async () => (await open()).checkpoint("last"), /state.json is damaged/);
    await Deno.remove(`${folder}/checkpoint-000001`, { recursive: true });
    await refused(async () => (await open()).checkpoint("last"), /Cannot read .*state.json: no such file/);

    const run1 = await Deno.readTextFile(`${folder}/run.json`);
    await Deno.writeTextFile(`${folder}/run.json`, run1.replace("checkpoint-000001", "../../else"));
    await refused(open, /is not the name of a checkpoint/);
    await Deno.writeTextFile(`${folder}/run.json`, '{"format": 2}');
    await refused(open, /format 2/);
    await Deno.writeTextFile(`${folder}/run.json`, '{"format": 1}');
    await refused(open, /it has no flags or no model/);
    await Deno.writeTextFile(`${folder}/run.json`, run1.slice(0, -9));
    await refused(open, /run.json is damaged/);
    await refused(() => RunFolder.create(folder, description), /^Cannot write to .*run.json is damaged/);
  }));
