/** ckpt.pt and meta.pkl: damaged files, and runs that are converted to a ckpt.pt and back. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { convert } from "../../src/cli/convert_command.ts";
import { createFile } from "../../src/files/files.ts";
import { Lock } from "../../src/files/locks.ts";
import { bf16ToF32, f32ToBf16 } from "../../src/half.ts";
import { readMetaPkl, writeMetaPkl } from "../../src/tokenizer/meta_pkl.ts";
import { loadNanoGPT, NanoGPTFile } from "../../src/checkpoint/nanogpt.ts";
import { nanoGPTToRun, runToNanoGPT } from "../../src/checkpoint/nanogpt_run.ts";
import { saveNanoGPT } from "../../src/checkpoint/nanogpt_save.ts";
import type { PickleValue } from "../../src/files/pickle_values.ts";
import { type PickleInput, writePickle } from "../../src/files/pickle_writer.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { loadTensors, sources } from "../../src/checkpoint/tensors.ts";
import { writeSafetensors } from "../../src/files/safetensors.ts";
import { loadPretrained } from "../../src/pretrained/load.ts";
import { TorchFile } from "../../src/files/torch_file.ts";
import { TorchTensor } from "../../src/files/torch_structure.ts";
import { type TorchInput, writeTorchFile } from "../../src/files/torch_writer.ts";
import { createDevice } from "../../src/device/create.ts";
import { CheckpointError, ConfigError, DataError } from "../../src/errors.ts";
import { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { tokenizerFromJSON } from "../../src/tokenizer/load.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { inFolder } from "../testing.ts";

const CKPT = new URL("../golden/torch_files/ckpt.pt", import.meta.url).pathname;

const names = async (folder: string) => (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();

type Dict = Map<string | number, TorchInput>;
/** A ckpt.pt written by PyTorch, to change it. */
async function whole(file: TorchFile): Promise<Dict> {
  const convert = async (value: PickleValue): Promise<TorchInput> => {
    if (value instanceof TorchTensor) {
      const data = await file.read(value);
      return { dtype: "F32", shape: value.shape, data: () => data };
    }
    if (value instanceof Map) {
      const dict: Dict = new Map();
      for (const [key, item] of value) dict.set(key as string, await convert(item));
      return dict;
    }
    return Array.isArray(value) ? await Promise.all(value.map(convert)) : value as PickleInput;
  };
  return await convert(file.value) as Dict;
}
const f32 = (...shape: number[]): TorchInput => {
  const size = shape.reduce((a, b) => a * b, 1);
  return { dtype: "F32", shape, data: () => new Float32Array(size) };
};

const f32With = (place: number, value: number, ...shape: number[]): TorchInput => {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  values[place] = value;
  return { dtype: "F32", shape, data: () => values };
};

Deno.test("ckpt.pt: a damaged file, or a file that is not nanoGPT's, is rejected with the reason", async (t) => {
  type Change = (parts: Record<"all" | "model" | "args" | "optimizer" | "state" | "group" | "first", Dict>) => unknown;
  const cases: [string, Change, RegExp][] = [
    ["no model", ({ all }) => all.delete("model"), /is not a checkpoint of nanoGPT: it has no model$/],
    ["no model_args", ({ all }) => all.delete("model_args"), /is not a checkpoint of nanoGPT: it has no model_args$/],
    ["no iter_num", ({ all }) => all.delete("iter_num"), /iter_num is undefined/],
    ["iter_num in the middle", ({ all }) => all.set("iter_num", 1.5), /iter_num is 1.5/],
    ["no n_layer", ({ args }) => args.delete("n_layer"), /model_args have n_layer undefined/],
    ["n_layer absurd", ({ args }) => args.set("n_layer", 2 ** 40), /model_args have n_layer 1099511627776/],
    ["bias is text", ({ args }) => args.set("bias", "True"), /model_args have bias True/],
    ["dropout of 1", ({ args }) => args.set("dropout", 1), /model_args have dropout 1/],
    ["n_head odd", ({ args }) => args.set("n_head", 5), /nEmbd is 12, not a multiple of nHead/],
    [
      "fewer layers",
      ({ args }) => args.set("n_layer", 1),
      /more layers than its config says: the model has no transformer\.h\.1\.ln_1\.weight/,
    ],
    ["more layers", ({ args }) => args.set("n_layer", 3), /it has no transformer\.h\.2\.ln_1\.weight/],
    [
      "n_embd absurd",
      ({ args }) => args.set("n_embd", 2 ** 40),
      /wte\.weight is \[11,12\], expected \[11,1099511627776\]/,
    ],
    ["another block_size", ({ args }) => args.set("block_size", 9), /wpe\.weight is \[8,12\], expected \[9,12\]/],
    ["missing", ({ model }) => model.delete("transformer.ln_f.bias"), /it has no transformer\.ln_f\.bias/],
    [
      "NaN",
      ({ model }) => model.set("transformer.ln_f.bias", f32With(7, NaN, 12)),
      /: transformer\.ln_f\.bias has NaN as element 7, but weights must be finite/,
    ],
    [
      "infinite",
      ({ first }) => first.set("exp_avg", f32With(131, -Infinity, 11, 12)),
      /: transformer\.wte\.weight\.exp_avg has -Infinity as element 131/,
    ],
    ["no tensor", ({ model }) => model.set("transformer.ln_f.bias", 1), /transformer\.ln_f\.bias is not a tensor/],
    ["twice", ({ model }) => model.set("_orig_mod.transformer.ln_f.bias", f32(12)), /ln_f\.bias occurs twice/],
    [
      "of integers",
      ({ model }) => model.set("transformer.ln_f.bias", { dtype: "I32", shape: [12], data: () => new Int32Array(12) }),
      /is I32/,
    ],
    [
      "a head of its own",
      ({ model }) => model.set("lm_head.weight", f32(11, 12)),
      /differ, but in nanoGPT they are one weight/,
    ],
    ["no state of AdamW", ({ optimizer }) => optimizer.delete("state"), /not nanoGPT's AdamW: it has no state/],
    ["no groups", ({ optimizer }) => optimizer.set("param_groups", []), /groups of no parameters, expected 10 and 18/],
    [
      "a group too short",
      ({ group }) => group.set("params", [0, 1]),
      /groups of 2 and 18 parameters, expected 10 and 18/,
    ],
    [
      "a number twice",
      ({ group }) => group.set("params", Array(10).fill(0)),
      /exp_avg of transformer\.wpe\.weight is F32 \[11,12\]/,
    ],
    [
      "a state missing",
      ({ state }) => state.delete(3),
      /transformer\.h\.0\.attn\.c_proj\.weight, number 3, has no state/,
    ],
    ["other steps", ({ first }) => first.set("step", 7), /its steps are 7,6/],
    ["no steps", ({ first }) => first.set("step", null), /its steps are ,6/],
    [
      "no exp_avg_sq",
      ({ first }) => first.set("exp_avg_sq", 0),
      /exp_avg_sq of transformer\.wte\.weight is not a tensor/,
    ],
    [
      "another shape",
      ({ first }) => first.set("exp_avg", f32(12, 11)),
      /exp_avg of transformer\.wte\.weight is F32 \[12,11\]/,
    ],
  ];
  using file = await TorchFile.open(CKPT);
  for (const [what, change, message] of cases) {
    await t.step(what, () =>
      inFolder(async (folder) => {
        const all = await whole(file),
          path = `${folder}/ckpt.pt`,
          dict = (from: Dict, key: string) => from.get(key) as Dict;
        const model = dict(all, "model"), args = dict(all, "model_args"), optimizer = dict(all, "optimizer");
        const state = dict(optimizer, "state"),
          [group] = optimizer.get("param_groups") as Dict[],
          first = state.get(0) as Dict;
        change({ all, model, args, optimizer, state, group, first });
        await writeTorchFile(path, all as TorchInput);
        const read = async () => {
          using file = await NanoGPTFile.open(path);
          for (const [, { data }] of [...file.weights(), ...(await file.optimizer())?.tensors ?? []]) await data();
        };
        const error = await assertRejects(read, CheckpointError);
        assertMatch((error as Error).message, message);
        assert((error as Error).message.startsWith(path));
      }));
  }
});

Deno.test("ckpt.pt: tensors that the model does not use are ignored and named", () =>
  inFolder(async (folder) => {
    using file = await TorchFile.open(CKPT);
    const all = await whole(file), path = `${folder}/ckpt.pt`, notes: string[] = [];
    (all.get("model") as Dict).set("v_head.summary.weight", f32(1, 12)).set("v_head.summary.bias", f32(1));
    await writeTorchFile(path, all as TorchInput);
    using read = await NanoGPTFile.open(path, { onNote: (line) => notes.push(line) });
    using original = await NanoGPTFile.open(CKPT);
    assertEquals(read.weights().map(([name]) => name), original.weights().map(([name]) => name));
    assertEquals(notes, [
      `${path}: tensors that the model does not use are ignored: v_head.summary.weight; v_head.summary.bias`,
    ]);
  }));

Deno.test("ckpt.pt: best_val_loss before the first evaluation, an empty optimizer state, a head that is stored twice", () =>
  inFolder(async (folder) => {
    using file = await TorchFile.open(CKPT);
    const all = await whole(file), model = all.get("model") as Dict, path = `${folder}/ckpt.pt`;
    const tensor = model.get("transformer.wte.weight") as unknown as { data: () => Float32Array };
    // In a storage of its own, with equal values.
    model.set("lm_head.weight", { ...tensor, dtype: "F32", shape: [11, 12] });
    all.set("best_val_loss", 1e9).set("optimizer", { state: {}, param_groups: [] });
    await writeTorchFile(path, all as TorchInput);
    using read = await NanoGPTFile.open(path);
    assertEquals([read.bestValLoss, await read.optimizer()], [null, undefined]);
    assertEquals(await read.weights()[0][1].data(), tensor.data());
  }));

async function bits(tensors: Iterable<readonly [string, Tensor]>): Promise<[string, string][]> {
  const all: [string, string][] = [];
  for (const [name, tensor] of tensors) {
    const { buffer, byteOffset, byteLength } = await tensor.data();
    all.push([name, new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength).toHex()]);
  }
  return all;
}

const sizes = { vocabSize: 7, blockSize: 8, nLayer: 2, nHead: 2, nEmbd: 12 };
const steps = { batchSize: 2, gradientAccumulationSteps: 2, evalIters: 1, evalInterval: 3, warmupIters: 2 };
const rates = { learningRate: 1e-2, decayLr: false, logInterval: 1 };
const text = Int32Array.from({ length: 200 }, (_, i) => i * i % 7);
const vocabulary = CharacterTokenizer.fromText("abcdefg").toJSON();
const flags = { batch_size: 2, learning_rate: 0.01, beta2: 0.95, seed: 5, device: "cpu", out_dir: "elsewhere" };

Deno.test("a run is converted to a ckpt.pt and back: weights, AdamW's state, iteration, best loss, flags", () =>
  inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), data = { train: text, val: text };
    const make = () => {
      const generator = new RandomGenerator(5);
      return { generator, model: new GPT({ ...sizes, bias: false }, { device, generator }) };
    };
    const first = make(), run = `${folder}/run`, back = `${folder}/back/`, path = `${folder}/ckpt.pt`;
    const create = { flags, model: { ...first.model.config }, vocabulary };
    const trainer = new Trainer(first.model, data, {
      ...{ ...steps, ...rates, maxIters: 6, generator: first.generator },
      folder: await RunFolder.create(run, create),
    });
    let best = Infinity;
    for await (const event of trainer.run()) if (event.kind === "evaluation") best = Math.min(best, event.valLoss);
    const saved = await (await RunFolder.open(run)).checkpoint("last"), { iter } = trainer.state();
    await loadTensors(saved.model, first.model.namedParameters()); // saved before the last update
    await loadTensors(saved.optimizer, trainer.optimizer.namedState());
    assertEquals([iter, saved.state.iter, saved.state.optimizerSteps], [7, 6, 6]);

    await runToNanoGPT(run, path);
    {
      using file = await NanoGPTFile.open(path);
      assertEquals([file.iter, file.bestValLoss, file.config.bias], [6, best, false]);
      assertEquals(file.flags, { batch_size: 2, learning_rate: 0.01, beta2: 0.95 }, "and not what is this machine's");
    }
    await nanoGPTToRun(path, back, { vocabulary, flags: { seed: 5 } });
    assertEquals(await names(folder), ["back", "ckpt.pt", "run"]);
    const returned = await RunFolder.open(back), { description } = returned;
    assertEquals(description.vocabulary, vocabulary);
    assertEquals(description.flags, {
      ...{ batch_size: 2, learning_rate: 0.01, beta2: 0.95, seed: 5, dropout: 0, bias: false },
      ...{ block_size: 8, n_layer: 2, n_head: 2, n_embd: 12 },
    });
    assertEquals([returned.last, returned.best], ["checkpoint-000006", "checkpoint-000006"]);

    const second = make();
    const resumed = new Trainer(second.model, data, {
      ...{ ...steps, ...rates, maxIters: 6, generator: second.generator },
      folder: returned,
    });
    await resumed.resume();
    assertEquals(await bits(second.model.namedParameters()), await bits(first.model.namedParameters()));
    assertEquals(await bits(resumed.optimizer.namedState()), await bits(trainer.optimizer.namedState()));
    assertEquals([resumed.iter, resumed.optimizer.t, resumed.state().bestValLoss], [6, 6, best]);
    // As in train.py, which starts again from the seed: it draws weights, which it discards, and then batches.
    const { generator } = make(), { offsets, generator: next } = resumed.state();
    assertEquals([offsets, next], [[], generator.getState()]);
    for (const one of [trainer, resumed]) one.dispose();
    device.close();
  }));

Deno.test("a ckpt.pt is opened only once to convert it to a run", () =>
  inFolder(async (folder) => {
    const opened: unknown[] = [], { open } = TorchFile;
    TorchFile.open = (path) => {
      opened.push(path);
      return open(path);
    };
    try {
      await writeMetaPkl(`${folder}/meta.pkl`, new CharacterTokenizer([..."abc"]));
      assertEquals(await convert([CKPT, `${folder}/run`, `--tokenizer=${folder}`]), 0);
    } finally {
      TorchFile.open = open;
    }
    assertEquals(opened, [CKPT]);
  }));

Deno.test("a run that trained a part of the model is converted with AdamW's state of that part", () =>
  inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), run = `${folder}/run`, path = `${folder}/ckpt.pt`;
    const model = new GPT({ ...sizes, bias: false }, { device, seed: 5 });
    model.freeze();
    model.transformer.h[1].unfreeze();
    const create = { flags, model: { ...model.config }, vocabulary }, data = { train: text, val: text };
    using trainer = new Trainer(model, data, {
      ...{ ...steps, ...rates, maxIters: 3 },
      folder: await RunFolder.create(run, create),
    });
    await Array.fromAsync(trainer.run());
    await runToNanoGPT(run, path);
    await saveNanoGPT(`${folder}/direct.pt`, model, { iter: 4, bestValLoss: null, optimizer: trainer.optimizer });
    for (const [name, steps] of [[path, 3], [`${folder}/direct.pt`, 4]] as const) {
      using file = await TorchFile.open(name);
      const { optimizer } = Object.fromEntries(file.value as Map<string, PickleValue>);
      const { state, param_groups } = Object.fromEntries(optimizer as Map<string, PickleValue>);
      // PyTorch numbers the ten matrices first, then the five norms. A parameter without a gradient has a number, but
      // no state.
      const numbers = (param_groups as Map<string, PickleValue>[]).map((group) => group.get("params"));
      assertEquals(numbers, [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]);
      const all = [...state as Map<number, Map<string, TorchTensor>>];
      assertEquals(all.map(([number]) => number), [6, 7, 8, 9, 12, 13]);
      assertEquals(all.map(([, own]) => own.get("exp_avg")!.shape.join()), [
        "36,12",
        "12,12",
        "48,12",
        "12,48",
        "12",
        "12",
      ]);
      assertEquals(await file.read(all[0][1].get("step")!), Float32Array.of(steps));
    }
    using file = await NanoGPTFile.open(path);
    const all = [...await file.weights()].map(([name]) => name);
    assertEquals(all, [...model.namedParameters()].map(([name]) => name));
    await assertRejects(() => file.optimizer(), CheckpointError, "transformer.wte.weight, number 0, has no state");
    device.close();
  }));

Deno.test("a run: tensors that the model does not use are ignored and named", () =>
  inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), run = `${folder}/run`, path = `${folder}/ckpt.pt`;
    const model = new GPT(sizes, { device, seed: 5 }), data = { train: text, val: text };
    const create = { flags, model: { ...model.config }, vocabulary }, rest = { ...steps, ...rates };
    using trainer = new Trainer(model, data, { ...rest, maxIters: 3, folder: await RunFolder.create(run, create) });
    await Array.fromAsync(trainer.run());
    const { model: weights, optimizer } = await (await RunFolder.open(run)).checkpoint("last");
    const add = async (path: string, name: string, tensors: Iterable<readonly [string, Tensor]>) =>
      await writeSafetensors(path, [...sources(tensors), [name, {
        dtype: "F32",
        shape: [1],
        data: () => Float32Array.of(1),
      }]]);
    await loadTensors(weights, model.namedParameters());

    const notes: string[] = [], onNote = (line: string) => notes.push(line);
    using resumed = new Trainer(model, data, { ...rest, maxIters: 3, folder: await RunFolder.open(run) });
    const readers = {
      sample: () => loadPretrained(run, { device, onNote }),
      resume: () => resumed.resume({ onNote }),
      convert: () => runToNanoGPT(run, path, { onNote }),
    };
    await add(weights, "v_head.weight", model.namedParameters());
    for (const [name, read] of Object.entries(readers)) {
      await read();
      assertEquals(
        notes.splice(0),
        [`${weights}: tensors that the model does not use are ignored: v_head.weight`],
        name,
      );
    }
    await add(weights, "transformer.h.2.ln_1.weight", model.namedParameters());
    for (const read of Object.values(readers)) {
      await assertRejects(read, CheckpointError, "more layers than its config says");
    }
    await add(weights, "v_head.weight", model.namedParameters());
    await add(optimizer, "v_head.weight.exp_avg", trainer.optimizer.namedState());
    await assertRejects(
      () => resumed.resume(),
      CheckpointError,
      "this one has no v_head.weight.exp_avg",
    );
    device.close();
  }));

Deno.test("a failed conversion leaves nothing, and an existing run stays", () =>
  inFolder(async (folder) => {
    const run = `${folder}/run`, damaged = `${folder}/ckpt.pt`, bytes = await Deno.readFile(CKPT);
    bytes[bytes.length >> 1] ^= 1; // within a storage
    await Deno.writeFile(damaged, bytes);
    const error = await assertRejects(() => nanoGPTToRun(damaged, run, { vocabulary }), CheckpointError);
    assertMatch((error as Error).message, /^Cannot make a run of .*ckpt\.pt: .*checksum$/);
    const full = () => Promise.reject(new Error("No space left (os error 28)"));
    await assertRejects(
      () => nanoGPTToRun(CKPT, run, { vocabulary, open: full }),
      CheckpointError,
      `ckpt.pt: Cannot write to ${run}: No space left`,
    );
    let opened = 0;
    const late = (path: string) => opened++ < 4 ? createFile(path) : full();
    await assertRejects(() => nanoGPTToRun(CKPT, run, { vocabulary, open: late }), CheckpointError, "No space left");
    assert(opened > 4);
    assertEquals(await names(folder), ["ckpt.pt"]);
    await Deno.mkdir(run);
    await nanoGPTToRun(CKPT, run, { vocabulary }); // an empty folder may exist
    const before = await names(run);
    await assertRejects(() => nanoGPTToRun(CKPT, run, { vocabulary }), CheckpointError, "name a new folder");
    await assertRejects(() => nanoGPTToRun(CKPT, damaged, { vocabulary }), CheckpointError, "name a new folder");
    assertEquals(await names(run), before);
    await assertRejects(() => runToNanoGPT(`${folder}/none`, damaged), CheckpointError, "No run in");
    await assertRejects(() => runToNanoGPT(run, damaged, { open: full }), CheckpointError, "Cannot write");
    const held = `${folder}/held`, lock = await Lock.take(held, { beside: true }); // as another process
    for (const write of [() => nanoGPTToRun(CKPT, held, { vocabulary }), () => runToNanoGPT(run, held)]) {
      await assertRejects(write, CheckpointError, `${held} is in use by process ${Deno.pid}`);
    }
    lock[Symbol.dispose]();
    assertEquals([await names(folder), await Deno.readFile(damaged)], [["ckpt.pt", "run"], bytes]);
  }));

Deno.test("a model that nanoGPT supports is saved as a ckpt.pt, with or without its optimizer", () =>
  inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), path = `${folder}/ckpt.pt`;
    const progress = { iter: 3, bestValLoss: null, flags: { weight_decay: 1 } };
    const model = new GPT({ ...sizes, activation: "gelu_new", dropout: 0.25 }, { device });
    const optimizer = model.configureOptimizers({ weightDecay: 1, learningRate: 1, betas: [0.9, 0.99] });
    for (let i = 0; i < 2; i++) {
      await saveNanoGPT(path, model, { ...progress, ...(i > 0 && { optimizer }) });
      using file = await NanoGPTFile.open(path);
      assertEquals([file.iter, file.bestValLoss, (await file.optimizer())?.steps], [3, null, i > 0 ? 2 : undefined]);
      assertEquals(await file.loadOptimizer(optimizer), i > 0);
      optimizer.t = 2;
    }
    const { model: loaded } = await loadNanoGPT(path, { device, dropout: 0 });
    assertEquals([loaded.config.activation, loaded.config.dropout], ["gelu_new", 0]);
    assertEquals(await bits(loaded.namedParameters()), await bits(model.namedParameters()));
    const { model: half } = await loadNanoGPT(path, { device, weights: "bf16" });
    assertEquals(half.lm_head.weight.dtype, "bf16");
    const rounded = f32ToBf16(await model.lm_head.weight.data() as Float32Array);
    assertEquals(await half.lm_head.weight.data(), bf16ToF32(rounded));
    const others = [{ activation: "relu" }, { nInner: 13 }, { layerNormEpsilon: 1e-6 }, { tieWordEmbeddings: false }];
    for (const other of others) {
      const model = new GPT({ ...sizes, ...other } as typeof sizes, { device });
      await assertRejects(
        () => saveNanoGPT(path, model, progress),
        ConfigError,
        "nanoGPT does not support this model: ",
      );
    }
    device.close();
  }));

Deno.test("meta.pkl: a written file is read again, and anything but a vocabulary of characters or words is rejected", () =>
  inFolder(async (folder) => {
    const path = `${folder}/meta.pkl`, tokenizer = CharacterTokenizer.fromText("\n🙂a\ufeffz\0");
    await writeMetaPkl(path, tokenizer);
    assertEquals(await readMetaPkl(path), tokenizer);
    const itos = new Map([[0, "a"], [1, "b"]]), stoi = { a: 0, b: 1 };
    const cases: [PickleInput, string][] = [
      [[], "it is not a dict"],
      [{ itos, stoi }, "vocab_size is undefined"],
      [{ vocab_size: 2, itos, stoi: { a: 0 } }, "vocab_size is 2, but stoi has other tokens"],
      [{ vocab_size: 3, itos, stoi }, "vocab_size is 3, but itos has 2 tokens"],
      [{ vocab_size: 0, itos: {}, stoi: {} }, "vocab_size is 0"],
      [
        { vocab_size: 2, itos: new Map([[0, "a"], [2, "b"]]), stoi },
        "itos does not map the ids from 0 on to distinct texts",
      ],
      [
        { vocab_size: 2, itos: new Map([[0, "a"], [1, "a"]]), stoi },
        "itos does not map the ids from 0 on to distinct texts",
      ],
      [{ vocab_size: 2, itos, stoi: { a: 1, b: 0 } }, 'token 0 is "a", but stoi maps it to 1'],
    ];
    for (const [value, message] of cases) {
      await Deno.writeFile(path, writePickle(value));
      await assertRejects(() => readMetaPkl(path), CheckpointError, message);
    }
    // Vocabularies that nanoGPT accepts: words, words and characters, and ids without a text.
    const words = new Map([[0, "C4"], [1, "rest"], [2, "x"]]), mixed = new Map([[0, "\n"], [1, "<eos>"], [2, "a"]]);
    const read = async (value: PickleInput) => {
      await Deno.writeFile(path, writePickle(value));
      const tokenizer = await readMetaPkl(path);
      assertEquals(await tokenizerFromJSON(JSON.parse(JSON.stringify(tokenizer))), tokenizer);
      return tokenizer;
    };
    const notes = await read({ vocab_size: 3, itos: words });
    assertEquals([...notes.encode(" rest C4\nx")], [1, 0, 2]);
    assertEquals(notes.decode([1, 0, 2]), "rest C4 x ");
    assertThrows(() => notes.encode("rest D4"), DataError, '"D4" is not a token: expected the 3 words');
    const letters = await read({ vocab_size: 3, itos: mixed, stoi: {} });
    assertEquals([...letters.encode("a\na<eos>")], [2, 0, 2, 1]);
    assertEquals(letters.decode([2, 0, 1]), "a\n<eos>");
    assertThrows(() => letters.encode("ab"), DataError, '"b" is not a token');
    const bare = await read({ vocab_size: 1000 });
    assertEquals([bare.vocabSize, bare.decode([999, 0]), ...bare.encode("999 0")], [1000, "999 0 ", 999, 0]);
    for (const text of ["1000", "-1", "a"]) {
      assertThrows(() => bare.encode(text), DataError, `"${text}" is not a token: expected token ids from 0 to 999`);
    }
    assertThrows(() => bare.decode([1000]), DataError, "Token 1000 is outside the vocabulary of 1000");
    await assertRejects(() => readMetaPkl(`${folder}/none`), CheckpointError, "none: no such file");
  }));
