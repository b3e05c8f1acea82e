/**
 * Reads and writes files of torch.save and nanoGPT, and compares them with PyTorch's results (generate_torch_files.py).
 */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { readMetaPkl } from "../../src/tokenizer/meta_pkl.ts";
import { loadNanoGPT, NanoGPTFile } from "../../src/checkpoint/nanogpt.ts";
import { readPickle } from "../../src/files/pickle.ts";
import type { PickleValue } from "../../src/files/pickle_values.ts";
import { SafetensorsFile } from "../../src/files/safetensors.ts";
import { TorchFile } from "../../src/files/torch_file.ts";
import { CheckpointError } from "../../src/errors.ts";
import { devices } from "../testing.ts";
import { FOLDER, writeTorchFiles } from "./torch_files.ts";

const json = (name: string) => JSON.parse(Deno.readTextFileSync(`${FOLDER}/${name}`));
const base64 = (text: string) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const get = (value: PickleValue | undefined, key: string) => value instanceof Map ? value.get(key) : undefined;

/** The value after a round trip through JSON. */
function plain(value: PickleValue): unknown {
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [key, plain(item)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

Deno.test("torch files: every dtype, stride and nesting is read as in PyTorch, bit for bit", async (t) => {
  const { tensors, plain: values } = json("values.json");
  for (const name of ["values.pt", "deflated.pt"]) {
    await t.step(name, async () => {
      using file = await TorchFile.open(`${FOLDER}/${name}`);
      assertEquals([...file.tensors.keys()], tensors.map(({ name }: { name: string }) => name));
      for (const { name, dtype, shape, bits } of tensors) {
        const tensor = file.tensors.get(name)!, array = await file.readTensor(name);
        assertEquals([tensor.dtype, tensor.shape], [dtype, shape], name);
        assertEquals(new Uint8Array(array.buffer), base64(bits), name);
        if (!dtype.includes("F")) continue;
        const floats = new Float32Array(array.length); // reads it in two parts
        await file.readFloats(name, 0, floats.subarray(0, 1));
        await file.readFloats(name, Math.min(1, array.length), floats.subarray(1));
        assertEquals(floats, Float32Array.from(array), name);
      }
      assertEquals(plain(get(file.value, "plain")!), values);
      assertEquals(get(file.value, "large"), 2n ** 70n);
      const part = file.tensors.get("tensors.part")!;
      assert(!part.contiguous && file.tensors.get("tensors.row")!.contiguous);
      assert(part.storage === file.tensors.get("tensors.transposed")!.storage, "views share their storage");
      assert(file.tensors.get("tensors.tied") === file.tensors.get("tensors.parameter"));
    });
  }
});

Deno.test("torch files: an invalid file is refused, and the message says what to do", async () => {
  const refused = async (name: string, message: string) => {
    await assertRejects(() => TorchFile.open(`${FOLDER}/${name}`), CheckpointError, message);
  };
  await refused("legacy.pt", 'has the format before PyTorch 1.6; convert it in Python: torch.save(torch.load("');
  await refused("hostile.pt", "uses posix.system, which is not allowed; no code from the file was executed");
  await refused("values.json", "is truncated or not a zip archive");
  await refused("no/such.pt", "no such file");
  await assertRejects(
    () => NanoGPTFile.open(`${FOLDER}/values.pt`),
    CheckpointError,
    "values.pt is not a checkpoint of nanoGPT: it has no model_args",
  );
});

Deno.test("pickles: protocols 2 to 5 are read, and every call that data do not need is refused, with its name", () => {
  const { plain: expected, read, refused } = json("pickles.json");
  for (const { protocol, bytes } of read) {
    const value = readPickle(base64(bytes), { where: "a.pkl" });
    assertEquals(plain(value), expected, `protocol ${protocol}`);
    assertEquals([...(value as Map<unknown, unknown>).keys()], ["a", "t", "s", 4, "u", "big"]);
  }
  assertEquals(refused.length, 18);
  for (const { name, bytes } of refused) {
    assertThrows(
      () => readPickle(base64(bytes), { where: "a.pkl" }),
      CheckpointError,
      `a.pkl uses ${name}, which is not allowed; no code from the file was executed`,
    );
  }
});

Deno.test("torch files: files that we write equal, byte for byte, files that PyTorch has opened and verified", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeTorchFiles(folder);
    const { torch, ...sums } = json("verified.json");
    assertEquals(torch, "2.13.0+cpu");
    assertEquals(Object.keys(sums), ["values.pt", "ckpt.pt", "meta.pkl"]);
    for (const [name, sum] of Object.entries(sums)) {
      const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(`${folder}/${name}`));
      assertEquals(new Uint8Array(digest).toHex(), sum, name);
    }
    using ours = await TorchFile.open(`${folder}/values.pt`);
    assert(ours.tensors.get("tensors.weight")!.storage === ours.tensors.get("tensors.tied")!.storage);
    assertEquals([...await ours.readTensor("tensors.f16")], [0, 0.5, 1, 1.5]);
    assertEquals([...await ours.readTensor("tensors.bf16")], [1, 1, 1.015625, -Infinity]);
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 3, "nothing else is left");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("ckpt.pt: weights, AdamW's state and all other values equal PyTorch's, also with torch.compile's names and older numbering", async () => {
  const { config, flags, names, best_val_loss } = json("ckpt.json");
  using expected = await SafetensorsFile.open(`${FOLDER}/ckpt.safetensors`);
  for (const name of ["ckpt.pt", "ckpt_compiled.pt", "ckpt_older.pt"]) {
    using file = await NanoGPTFile.open(`${FOLDER}/${name}`);
    const { blockSize, vocabSize, nLayer, nHead, nEmbd, dropout, bias } = file.config;
    const { n_layer, n_head, n_embd, block_size, vocab_size } = config;
    assertEquals([nLayer, nHead, nEmbd, blockSize, vocabSize], [n_layer, n_head, n_embd, block_size, vocab_size]);
    assertEquals([bias, dropout, file.iter, file.flags], [true, 0, 6, flags]);
    assertEquals(file.bestValLoss, best_val_loss);
    const { steps, tensors } = (await file.optimizer())!, weights = file.weights();
    assertEquals(steps, 6);
    assertEquals(weights.map(([name]) => name).toSorted(), names.toSorted());
    const moments = names.flatMap((name: string) => [`${name}.exp_avg`, `${name}.exp_avg_sq`]);
    assertEquals(tensors.map(([name]) => name).toSorted(), moments.toSorted());
    for (const [name, { data }] of [...weights, ...tensors]) {
      assertEquals(await data(), await expected.readTensor(name));
    }
  }
});

Deno.test("ckpt.pt: training resumes with PyTorch's losses", async () => {
  const { batches, losses } = json("ckpt.json");
  for (const { name, device } of await devices()) {
    const { model } = await loadNanoGPT(`${FOLDER}/ckpt.pt`, { device });
    const optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 1e-2, betas: [0.9, 0.99] });
    {
      using file = await NanoGPTFile.open(`${FOLDER}/ckpt.pt`);
      assert(await file.loadOptimizer(optimizer));
    }
    assertEquals(optimizer.t, 6);
    for (const [i, batch] of (batches as number[][][]).entries()) {
      const tokens = device.tensor(batch.flatMap((row) => row.slice(0, -1)), [3, 8], { dtype: "i32" });
      const targets = device.tensor(batch.flatMap((row) => row.slice(1)), [3, 8], { dtype: "i32" });
      const { loss } = model.forward(tokens, targets);
      loss.backward();
      optimizer.step({ gradClip: 1 });
      optimizer.zeroGrad();
      assertAlmostEquals(await loss.item(), losses[i], 2e-6, `${name}, update ${i}`); // f32, six updates
    }
    device.close();
  }
});

Deno.test("meta.pkl: the vocabulary equals Python's", async () => {
  assertEquals(await readMetaPkl(`${FOLDER}/meta.pkl`), new CharacterTokenizer(json("meta.json")));
});
