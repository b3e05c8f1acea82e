/** Heads: how rows and labels are interpreted, resuming, and memory estimates. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { CpuDevice } from "../../src/device/cpu.ts";
import { createDevice } from "../../src/device/create.ts";
import { CheckpointError, ConfigError, DataError } from "../../src/errors.ts";
import { headFeatures, headScores, storedFeatures } from "../../src/finetune/head_passes.ts";
import { HeadRows } from "../../src/finetune/head_rows.ts";
import { HeadTask, type HeadTaskOptions } from "../../src/finetune/head_task.ts";
import { DoubleHeads, lastTokens } from "../../src/finetune/heads.ts";
import { addInputTokens, type HeadKind, inputsOf } from "../../src/finetune/inputs.ts";
import { type LabelAt, labellingOf, labelNumbers } from "../../src/finetune/labels.ts";
import { layerGroups, trainLastBlocks } from "../../src/finetune/transfer.ts";
import { GPT } from "../../src/gpt.ts";
import { RandomGenerator } from "../../src/random/mod.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { trainingNeeds } from "../../src/train/memory.ts";
import type { DrawOptions, MicroBatch } from "../../src/train/task.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, inFolder } from "../testing.ts";

const SIZES = { vocabSize: 12, blockSize: 32, nLayer: 2, nHead: 2, nEmbd: 16, dropout: 0.1 } as const;
const tokenizer = CharacterTokenizer.fromText("abcdefgh");
const tokens = { start: 8, delimiter: 9, extract: 10 };
const labels = (...all: LabelAt["label"][]): LabelAt[] => all.map((label, i) => ({ where: `line ${i + 1}`, label }));

Deno.test("labels: names, classes, several labels and numbers are distinguished", () => {
  const found = (...all: LabelAt["label"][]) => labellingOf(labels(...all));
  const single = "single_label_classification", several = "multi_label_classification";
  assertEquals(found("b", "a", "𝒳", "ﬁ", "b"), { problemType: single, labels: ["a", "b", "ﬁ", "𝒳"] }); // sorted by code point
  assertEquals(found(true, false), { problemType: single, labels: ["false", "true"] });
  assertEquals(found(0, 2, 1), { problemType: single, labels: ["LABEL_0", "LABEL_1", "LABEL_2"] });
  assertEquals(found(0, 2.5), { problemType: "regression", labels: ["LABEL_0"] });
  assertEquals(found(["b"], [], ["a", "b"]), { problemType: several, labels: ["a", "b"] });
  const all = found(["b"], [], ["a", "b"]);
  assertEquals(labels(["b"], [], ["a", "b"]).map((one) => labelNumbers(one, all)), [[0, 1], [0, 0], [1, 1]]);
  assertEquals(labellingOf(labels(3, 4), { problemType: "regression" }).labels, ["LABEL_0"]);
});

Deno.test("invalid labels are refused with their line", () => {
  const refused = (all: LabelAt[], message: string, given = {}) =>
    assertThrows(() => labellingOf(all, given), DataError, message);
  refused(labels("a", 1), 'labels are of mixed types: "a" in line 1 is a name, and 1 in line 2 is a number');
  refused(labels(["a"], "a"), "mixed types");
  refused(labels("a", "b"), "1 in line 1 is a number", { others: labels(1) });
  refused(labels(["a", 1]), "line 1: labels must be all names or all numbers");
  refused(labels(0, -1), "line 2: the label -1 is not the number of a class");
  refused(labels("a", "a"), "expected two different labels or more");
  refused(labels(0, 1, 2), "the data have 3 classes, but the model has 2 labels: no, yes", { labels: ["no", "yes"] });
  refused(labels(["a"], ["b"]), "line 1: the label is a list", { problemType: "single_label_classification" });
  refused([], "there is no row");
  const labelling = labellingOf(labels("a", "b"));
  const one = (label: LabelAt["label"]) => () => labelNumbers({ where: "line 9", label }, labelling);
  assertThrows(one("c"), DataError, 'line 9: the label "c" is not one of the 2 labels: "a", "b"');
  assertThrows(one(2), DataError, "line 9: the label 2 is outside the range of 0 to 1");
  const numbers = labellingOf(labels([0.5, 1], [2, 3]), { problemType: "regression" });
  assertThrows(() => labelNumbers({ where: "line 3", label: [1] }, numbers), DataError, "expected 2 numbers");
});

Deno.test("inputs are texts one after the other, or in GPT-1's form with tokens between them; long texts are cut", () => {
  const of = (kind: HeadKind, row: object, more: object = {}) =>
    inputsOf({ where: "line 1", kind: "label", text: "", label: 0, ...row } as never, {
      kind,
      tokenizer,
      maxLength: 32,
      ...more,
    });
  const ids = (kind: HeadKind, row: object, more: object = {}) => of(kind, row, more).sequences.map((all) => [...all]);
  assertEquals(ids("classify", { text: "abc" }), [[0, 1, 2]]);
  assertEquals(ids("classify", { text: "ab", pair: "cd" }), [[0, 1, 2, 3]]);
  assertEquals(ids("classify", { text: "ab" }, { tokens }), [[8, 0, 1, 10]]);
  assertEquals(ids("entail", { text: "ab", pair: "c" }, { tokens }), [[8, 0, 1, 9, 2, 10]]);
  assertEquals(ids("similar", { text: "ab", pair: "c" }, { tokens }), [[8, 0, 1, 9, 2, 10], [8, 2, 9, 0, 1, 10]]);
  const choices = { text: undefined, context: "ab", choices: ["c", "de"] };
  assertEquals(ids("choose", choices), [[0, 1, 2], [0, 1, 3, 4]]);
  assertEquals(ids("choose", choices, { tokens }), [[8, 0, 1, 9, 2, 10], [8, 0, 1, 9, 3, 4, 10]]);
  // Each text of a pair has room for 10 / 2 − 2 = 3 tokens, as in the paper's code.
  assertEquals(ids("entail", { text: "abcdef", pair: "gh" }, { tokens, maxLength: 10 }), [[8, 0, 1, 2, 9, 6, 7, 10]]);
  const fits = { text: "abcdef", pair: "g" };
  assertEquals(ids("entail", fits, { tokens, maxLength: 10 }), [[8, 0, 1, 2, 3, 4, 5, 9, 6, 10]]);
  const end = { tokens, maxLength: 10, truncation: "keep_end" };
  assertEquals(ids("entail", { text: "abcdef", pair: "gh" }, end), [[8, 3, 4, 5, 9, 6, 7, 10]]);
  assertEquals(ids("choose", choices, { maxLength: 3 }), [[0, 1, 2], [0, 3, 4]]);
  const longer = { ...choices, context: "a", choices: ["bcd", "efgh"] };
  assertEquals(ids("choose", longer, { maxLength: 4 }), [[0, 1, 2, 3], [0, 4, 5, 6]]);
  assertEquals(of("classify", { text: "abcdef" }, { maxLength: 4 }), {
    sequences: [Int32Array.of(0, 1, 2, 3)],
    cut: true,
  });
  assertThrows(() => of("entail", { text: "ab" }, { tokens }), DataError, "line 1: entail needs two texts");
  assertThrows(
    () => of("entail", { text: "a", pair: "b" }),
    ConfigError,
    "needs the tokens start, delimiter and extract",
  );
  assertThrows(() => of("classify", { text: "" }), DataError, "line 1: the text has no token");
  assertThrows(() => of("classify", { text: "az" }), DataError, "line 1: Not in the vocabulary");
  assertThrows(
    () => of("choose", { text: undefined, context: "a", choices: ["b"] }),
    DataError,
    "expected two or more choices",
  );
  assertThrows(() => of("choose", { text: "a" }), DataError, "needs a context with choices");
});

Deno.test("lastTokens finds the rightmost token that is not padding, as in transformers", () => {
  assertEquals([...lastTokens([[5, 0, 0], [0, 0, 6], [0, 7, 0]], 0)], [0, 5, 7]);
  assertEquals([...lastTokens([[5, 0], [0, 0]])], [1, 3]);
  assertThrows(() => lastTokens([[1, 2], [0, 0]], 0), DataError, "row 1 is nothing but padding");
});

/** Rows of several lengths. The label of a row depends on its last token. */
function someRows(count: number, { kind = "classify" as HeadKind, seed = 3 } = {}): HeadRows {
  const rows = new HeadRows(), random = new RandomGenerator(seed);
  const text = () => Array.from({ length: 1 + random.randint(24) }, () => random.randint(8));
  for (let i = 0; i < count; i++) {
    const sequences = kind === "similar"
      ? [text(), text()]
      : kind === "choose"
      ? Array.from({ length: 2 + i % 2 }, text)
      : [text()];
    rows.add(sequences, { where: `row ${i}`, label: kind === "choose" ? i % 2 : sequences[0].at(-1)! % 3 });
  }
  return rows;
}
const labelling = { problemType: "single_label_classification", labels: ["x", "y", "z"] } as const;
const COUNTS = { gradientAccumulationSteps: 2, maxIters: 12, evalInterval: 6, evalIters: 2, logInterval: 1 };
const RATES = { learningRate: 1e-2, decayLr: false, warmupIters: 0 };

async function losses(trainer: Trainer, stopAt = Infinity): Promise<number[]> {
  const found: number[] = [], controller = new AbortController();
  for await (const event of trainer.run({ signal: controller.signal })) {
    if (event.kind !== "step") continue;
    found.push(event.loss);
    if (event.iter === stopAt) controller.abort();
  }
  return found;
}

for (
  const [what, kind, more] of [
    ["a classifier", "classify", { dropout: 0.2 }],
    ["gradual unfreezing", "classify", { unfreezeEvery: 2, layerDecay: 0.5 }],
    ["choices of GPT-1's form", "choose", { tokens }],
    ["similarity", "similar", { tokens }],
  ] as [string, HeadKind, Partial<HeadTaskOptions>][]
) {
  Deno.test(`${what}: a run stopped in an epoch resumes bit for bit`, () =>
    inFolder(async (folder) => {
      const device = await createDevice("cpu", { threads: 1 });
      const trainerOf = (run: RunFolder, seed = 1) => {
        const model = new GPT(SIZES, { device, generator: new RandomGenerator(seed) }),
          rows = { train: someRows(23, { kind }), val: someRows(7, { kind }) };
        const task = new HeadTask(model, rows, {
          kind,
          labelling: kind === "choose" ? undefined : labelling,
          batchSize: 4,
          ...more,
        });
        return new Trainer(model, task, { ...COUNTS, ...RATES, folder: run });
      };
      const files = async (path: string) => {
        const { name } = await (await RunFolder.open(path)).checkpoint("last"), found: Record<string, Uint8Array> = {};
        for (const part of ["model.safetensors", "optimizer.safetensors", "task.safetensors", "state.json"]) {
          found[part] = await Deno.readFile(`${path}/${name}/${part}`);
        }
        return found;
      };
      const create = (path: string) => RunFolder.create(path, { flags: {}, model: { ...SIZES }, vocabulary: {} });
      using whole = trainerOf(await create(`${folder}/a`)), stopped = trainerOf(await create(`${folder}/b`));
      const all = await losses(whole), before = await losses(stopped, 4);
      using resumed = trainerOf(await RunFolder.open(`${folder}/b`), 2);
      await resumed.resume();
      assertEquals([...before, ...await losses(resumed)], all);
      assertEquals(await files(`${folder}/b`), await files(`${folder}/a`));
      const { tokens: _, ...others } = more;
      const other = new HeadTask(resumed.model, (resumed.task as HeadTask).rows, {
        kind: "classify",
        labelling: { ...labelling, labels: ["x", "y", "w"] },
        batchSize: 4,
        ...others,
      });
      using wrong = new Trainer(resumed.model, other, {
        ...COUNTS,
        ...RATES,
        folder: await RunFolder.open(`${folder}/b`),
      });
      await assertRejects(
        () => wrong.resume(),
        CheckpointError,
        kind === "classify" ? "its labels is x,y,z, expected x,y,w" : "of another task",
      );
      device.close();
    }));

  Deno.test(`${what}: a run takes no more memory than estimated`, async () => {
    const device = await CpuDevice.create({ threads: 1 });
    const taskOf = (model: GPT, count = 23) => {
      const rows = { train: someRows(count, { kind }), val: someRows(7, { kind }) };
      return new HeadTask(model, rows, {
        kind,
        labelling: kind === "choose" ? undefined : labelling,
        batchSize: 4,
        ...more,
      });
    };
    const own = new GPT(SIZES, { device }), planned = taskOf(own);
    const { bytes } = await trainingNeeds(SIZES, {
      ...COUNTS,
      ...RATES,
      device,
      task: (model) => planned.rehearsal(model),
    });
    for (const one of [own, planned.module]) one.dispose();
    const idle = device.memory().reserved, model = new GPT(SIZES, { device });
    using trainer = new Trainer(model, taskOf(model), { ...COUNTS, ...RATES, maxIters: 40 });
    await losses(trainer);
    const taken = device.memory().reserved - idle;
    assert(taken <= bytes && taken > bytes / 2, `${taken} bytes, estimated ${bytes}`);
    device.close();
  });
}

Deno.test("the accumulated gradient of micro-batches, of which the last is smaller, is the gradient of all rows at once", async () => {
  const device = await createDevice("reference"), rows = someRows(7);
  const gradient = async (batchSize: number, count: number) => {
    const model = new GPT({ ...SIZES, dropout: 0 }, { device });
    const task = new HeadTask(model, { train: rows, val: rows }, {
      kind: "classify",
      labelling,
      batchSize,
      shuffle: false,
      lmWeight: 0.5,
    });
    const batches = [...task.draw({ count })];
    assertClose([batches.reduce((sum, { weight }) => sum + weight!, 0)], [1], { atol: 1e-12, rtol: 0 }, "shares");
    for (const { arrays, weight } of batches) {
      using _ = device.scope();
      const tensors = Object.entries(arrays).map(([name, { values, shape }]) => {
        return [name, device.tensor(values, shape, { dtype: values instanceof Int32Array ? "i32" : "f32" })];
      });
      task.loss(model, Object.fromEntries(tensors)).backward(device.tensor([weight!], []));
    }
    return await Promise.all(
      [model.transformer.h[0].mlp.c_fc.weight, task.module.parameters().next().value!].map((p) => p.grad!.data()),
    );
  };
  const [whole, apart] = [await gradient(7, 1), await gradient(3, 3)]; // one batch of 7; batches of 3, 3 and 1 rows
  for (const [i, values] of apart.entries()) assertClose(values, whole[i], { atol: 1e-12, rtol: 1e-12 }, "gradient");
});

Deno.test("training on stored features has the same losses as through the body, and features of other rows or models are refused", () =>
  inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), model = new GPT({ ...SIZES, dropout: 0 }, { device });
    trainLastBlocks(model, 0);
    for (const kind of ["classify", "similar", "choose"] as const) {
      const rows = { train: someRows(20, { kind }), val: someRows(7, { kind }) },
        path = `${folder}/${kind}.safetensors`;
      const first = await storedFeatures(path, model, { rows }), again = await storedFeatures(path, model, { rows });
      assertEquals([first.read, again.read], [false, true]);
      assertEquals(again.features, first.features);
      const options = {
        kind,
        labelling: kind === "choose" ? undefined : labelling,
        batchSize: 4,
        tokens: kind === "similar" ? tokens : undefined,
      };
      const run = async (more: Partial<HeadTaskOptions>) => {
        const task = new HeadTask(model, rows, { ...options, ...more });
        using trainer = new Trainer(model, task, { ...COUNTS, ...RATES });
        const found = await losses(trainer);
        assertEquals(
          (await headScores(model, task.module, { description: task.description, rows: rows.val })).length,
          7,
        );
        return found;
      };
      assertClose(await run({ features: first.features, dropout: 0 }), await run({ dropout: 0 }), {
        atol: 1e-6,
        rtol: 1e-6,
      }, kind);
      const other = { train: someRows(20, { kind, seed: 4 }), val: rows.val };
      await assertRejects(
        () => storedFeatures(path, model, { rows: other }),
        CheckpointError,
        "features of other rows",
      );
      const another = new GPT(SIZES, { device, seed: 9 });
      await assertRejects(() => storedFeatures(path, another, { rows }), CheckpointError, "features of another model");
      const nowhere = `${folder}/no/a.safetensors`;
      await assertRejects(
        () => storedFeatures(nowhere, model, { rows }),
        CheckpointError,
        `Cannot write ${nowhere}: no such`,
      );
    }
    model.unfreeze();
    const rows = someRows(4), features = { train: await headFeatures(model, rows), val: new Float32Array(0) };
    const trained = () =>
      new HeadTask(model, { train: rows, val: rows }, { kind: "classify", labelling, batchSize: 4, features });
    assertThrows(trained, ConfigError, "features: the model below the head must be frozen");
    device.close();
  }));

Deno.test("a frozen body records nothing for backward, and the loss of the next tokens is not added", async () => {
  const device = await createDevice("cpu", { threads: 1 }), model = new GPT(SIZES, { device });
  trainLastBlocks(model, 0);
  const rows = someRows(4, { kind: "choose" }),
    task = new HeadTask(model, { train: rows, val: rows }, { kind: "choose", batchSize: 4, lmWeight: 0.5 } as never);
  const [{ arrays }] = task.draw({ count: 1, generator: new RandomGenerator(0) } as DrawOptions) as Iterable<
    MicroBatch
  >;
  assertEquals(Object.keys(arrays).sort(), ["at", "labels", "mask", "tokens"]);
  const ids = device.tensor(arrays.tokens.values, arrays.tokens.shape, { dtype: "i32" });
  assertEquals(model.hidden(ids).node, undefined);
  device.close();
});

Deno.test("the last blocks can be trained alone, and learning rates and starts of training depend on the layer", async () => {
  const device = await createDevice("cpu", { threads: 1 }), model = new GPT({ ...SIZES, nLayer: 3 }, { device });
  const head = new DoubleHeads(model),
    added = [...head.namedParameters()].map(([name, one]) => [`task.${name}`, one] as const);
  const groups = layerGroups(model, added, { learningRate: 1, layerDecay: 0.5, unfreezeEvery: 10 });
  const shown = groups.map(({ parameters, learningRate, from }) => [[...parameters][0][0], learningRate, from]);
  assertEquals(shown, [
    ["task.multiple_choice_head.summary.weight", 1, 0],
    ["transformer.h.2.ln_1.weight", 0.5, 10],
    ["transformer.h.1.ln_1.weight", 0.25, 20],
    ["transformer.h.0.ln_1.weight", 0.125, 30],
    ["transformer.wte.weight", 0.0625, 40],
  ]);
  trainLastBlocks(model, 2);
  const trained = layerGroups(model, added, { layerDecay: 0.5 }).map(({ parameters }) => [...parameters].length);
  assertEquals(trained, [2, 14, 12]); // parameters of the head; of the last block with the last layer norm; of a block
  assertThrows(
    () => trainLastBlocks(model, 4),
    ConfigError,
    "trainLastBlocks: blocks is 4; expected a whole number from 0 to 3",
  );
  assertThrows(() => layerGroups(model, added, { layerDecay: 0 }), ConfigError, "layerDecay is 0");
  assertThrows(() => layerGroups(model, added, { unfreezeEvery: 1.5 }), ConfigError, "unfreezeEvery is 1.5");
  device.close();
});

Deno.test("dropout uses one mask for all choices of an example in GPT-1's form, otherwise one mask for each choice", async () => {
  const device = await createDevice("cpu", { threads: 1 }), model = new GPT({ ...SIZES, dropout: 0 }, { device });
  const head = new DoubleHeads(model, { dropout: 0.5 }),
    states = device.tensor(new Float32Array(6 * 16).fill(1), [6, 16]);
  assert(model.noise.used);
  model.noise.begin();
  const scores = async (shared: boolean) => [...await head.forward(states, { choices: 3, shared }).data()];
  const shared = await scores(true), apart = await scores(false);
  assertEquals([shared[1], shared[2], shared[4], shared[5]], [shared[0], shared[0], shared[3], shared[3]]);
  assert(shared[0] !== shared[3] && new Set(apart).size > 2);
  device.close();
});

Deno.test("GPT-1's tokens are added once, to a tokenizer of any kind, with embeddings of their own", async () => {
  const device = await createDevice("cpu", { threads: 1 }), model = new GPT({ ...SIZES, vocabSize: 8 }, { device });
  const before = await model.transformer.wte.weight.data();
  const { tokenizer: more, tokens: ids } = addInputTokens(model, tokenizer);
  assertEquals([ids, more.vocabSize, model.config.vocabSize], [{ start: 8, delimiter: 9, extract: 10 }, 11, 11]);
  const after = await model.transformer.wte.weight.data(), drawn = new Float32Array(3 * 16);
  new RandomGenerator(1337).normal(drawn, 0, 0.02);
  assertEquals([...after], [...before, ...drawn]);
  addInputTokens(model, more);
  assertEquals([...await model.transformer.wte.weight.data()], [...after]);
  device.close();
});
