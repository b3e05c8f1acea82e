/** Heads loaded from Hugging Face folders and runs, saved to folders, and used by pipelines. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { loadHuggingFace } from "../../src/checkpoint/hugging_face.ts";
import { saveHuggingFace } from "../../src/checkpoint/hugging_face_save.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { createDevice } from "../../src/device/create.ts";
import type { Device } from "../../src/engine/device.ts";
import { CheckpointError, ConfigError, DataError } from "../../src/errors.ts";
import { SafetensorsFile } from "../../src/files/safetensors.ts";
import { saveAdapter } from "../../src/finetune/adapter.ts";
import { headScores } from "../../src/finetune/head_passes.ts";
import { HeadRows } from "../../src/finetune/head_rows.ts";
import { HeadTask } from "../../src/finetune/head_task.ts";
import type { SequenceClassifier } from "../../src/finetune/heads.ts";
import { labellingOf } from "../../src/finetune/labels.ts";
import { adaptersOf, applyLora } from "../../src/finetune/lora.ts";
import { GPT } from "../../src/gpt.ts";
import { loadHead, savedHead } from "../../src/pretrained/load_head.ts";
import { pipeline } from "../../src/pretrained/pipeline.ts";
import { firstSentences } from "../../src/pretrained/summarization.ts";
import type { ClassifiedText } from "../../src/pretrained/text_classification.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, inFolder } from "../testing.ts";

const folders = new URL("../golden/fixtures/heads", import.meta.url).pathname;
const expected = JSON.parse(await Deno.readTextFile(`${folders}/expected.json`));
const limit = { atol: 1e-6, rtol: 1e-6 };

const onDevice = async (body: (device: Device) => Promise<void>) => {
  const device = await createDevice("cpu", { threads: 1 });
  try {
    await body(device);
  } finally {
    device.close();
  }
};

/** Checks for equal labels in the same order, and scores within the limit, in nested lists of any depth. */
function assertScores(actual: unknown, wanted: unknown, what: string): void {
  if (Array.isArray(wanted)) {
    assert(Array.isArray(actual), what);
    assertEquals(actual.length, wanted.length, what);
    return wanted.forEach((one, i) => assertScores(actual[i], one, `${what}, ${i}`));
  }
  const [{ label, score }, theirs] = [actual as ClassifiedText, wanted as ClassifiedText];
  assertEquals(label, theirs.label, what);
  assertClose([score], [theirs.score], limit, what);
}

for (const name of ["classifier", "several"]) {
  Deno.test(`text-classification gives the results of transformers' pipeline (${name})`, () =>
    onDevice(async (device) => {
      const own = device.memory().tensors;
      const classify = await pipeline("sentiment-analysis", `${folders}/${name}`, { device }), wanted = expected[name];
      type Given = string | { text: string; text_pair: string };
      const texts = (expected.texts as Given[]).map((given) =>
        typeof given === "string" ? given : { text: given.text, textPair: given.text_pair }
      );
      const first = texts[0] as string, pair = texts[3] as { text: string; textPair: string };
      assertScores(await classify(first), wanted.one, "a text gives a list of one");
      assertScores(await classify(pair), wanted.pair, "a pair gives its label alone");
      assertScores(await classify(texts), wanted.texts, "texts");
      assertScores(await classify(texts, { topK: 2 }), wanted.top2, "the two most likely labels");
      assertScores(await classify(first, { topK: null }), wanted.all, "all, sorted");
      const strings = texts.slice(0, 3);
      assertScores(await classify(strings, { topK: null, functionToApply: "sigmoid" }), wanted.sigmoid, "sigmoid");
      assertScores(await classify(strings, { functionToApply: "none" }), wanted.none, "none");
      assertEquals(await classify([]), []);
      await assertRejects(() => classify("a".repeat(17)), DataError, "{ truncation: true }");
      await assertRejects(() => classify("aaa"), DataError, "the text: the row is nothing but padding (token 0)");
      await assertRejects(() => classify(first, { topK: 0 }), ConfigError, "topK is 0");
      await assertRejects(() => classify(first, { functionToApply: "default" as "none" }), ConfigError, "default");
      assertScores(await classify("b".repeat(17), { truncation: true }), await classify("b".repeat(16)), "cut");
      classify.close();
      assertEquals(device.memory().tensors, own);

      const extract = await pipeline("feature-extraction", await loadHead(`${folders}/${name}`, { device }));
      const [states, theirs] = [await extract(texts[1] as string), wanted.features];
      assertEquals([states.length, states[0].length, states[0][0].length], [1, 4, 8]);
      assertClose(states.flat(2), theirs.flat(2), { atol: 2e-6, rtol: 2e-6 }, "features");
      const tensor = await extract(texts[1] as string, { returnTensors: true });
      assertEquals([tensor.shape, [...await tensor.data()]], [[1, 4, 8], states.flat(2)]);
      await assertRejects(() => extract("a".repeat(17)), DataError, "has 17 tokens, and the model's block size is 16");
    }));
}

Deno.test("a folder of GPT2DoubleHeadsModel scores choices like transformers", () =>
  onDevice(async (device) => {
    const { model, head, description } = await loadHead(`${folders}/choices`, { device }), rows = new HeadRows();
    rows.add(expected.choices.tokens, { where: "row 0", label: 0 });
    const [scores] = await headScores(model, head, { description, rows });
    assertClose(scores, expected.choices.scores, limit, "scores");
    const refused = () => pipeline("text-classification", `${folders}/choices`, { device });
    const before = device.memory().tensors;
    await assertRejects(refused, ConfigError, "The head is for choices");
    assertEquals(device.memory().tensors, before);
  }));

const tensorsOf = async (folder: string) => {
  using file = await SafetensorsFile.open(`${folder}/model.safetensors`);
  const found = [...file.tensors.keys()].sort();
  return await Promise.all(found.map(async (name) => [name, await file.readTensor(name)]));
};

for (const name of ["classifier", "several", "choices"]) {
  Deno.test(`a folder with a head is saved as transformers saves it (${name})`, () =>
    inFolder((folder) =>
      onDevice(async (device) => {
        const { model, head, description } = await loadHead(`${folders}/${name}`, { device }), path = `${folder}/new`;
        await saveHuggingFace(model, path, {
          head: savedHead(head, description),
          vocabularyFrom: `${folders}/${name}`,
        });
        assertEquals(await tensorsOf(path), await tensorsOf(`${folders}/${name}`));
        const [ours, theirs] = await Promise.all(
          [path, `${folders}/${name}`].map(async (at) => JSON.parse(await Deno.readTextFile(`${at}/config.json`))),
        );
        for (const [field, value] of Object.entries(ours)) {
          if (field !== "n_ctx") assertEquals(value, theirs[field], field);
        }
        if (name !== "choices") assertEquals(Object.keys(ours.id2label).length, 3);
        await loadHead(path, { device });
      })
    ));
}

Deno.test("a run's head is loaded from its checkpoint for a pipeline and for a folder, and damage is reported", () =>
  inFolder((folder) =>
    onDevice(async (device) => {
      const tokenizer = CharacterTokenizer.fromText("abc"), path = `${folder}/run`, rows = new HeadRows();
      for (const text of ["aab", "bba", "abb", "aaba", "bbab", "b"]) {
        rows.add([tokenizer.encode(text)], { where: text, label: text.at(-1) === "a" ? "ends in a" : "ends in b" });
      }
      const model = new GPT({ vocabSize: 3, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device, seed: 5 });
      const description = { flags: {}, model: { ...model.config }, vocabulary: tokenizer.toJSON() };
      const run = await RunFolder.create(path, description), labelling = labellingOf(rows.labels);
      const task = new HeadTask(model, { train: rows, val: rows }, {
        kind: "classify",
        labelling,
        batchSize: 6,
        padTokenId: 2,
      });
      const counts = { gradientAccumulationSteps: 1, maxIters: 40, evalInterval: 40, evalIters: 1, logInterval: 10 };
      const rates = { learningRate: 1e-2, decayLr: false, warmupIters: 0 };
      using trainer = new Trainer(model, task, { ...counts, ...rates, folder: run });
      const accuracies: number[] = [];
      for await (const event of trainer.run()) {
        if (event.kind === "evaluation") accuracies.push(event.measures.val_accuracy);
      }
      assertEquals(accuracies.at(-1), 1);
      const metrics = (await Deno.readTextFile(run.metricsPath)).trim().split("\n").map((line) => JSON.parse(line));
      assertEquals(metrics.find(({ iter, val_loss }) => iter === 40 && val_loss !== undefined).val_accuracy, 1);

      const classify = await pipeline("text-classification", path, { device });
      assertEquals((await classify(["ababa", "ab"])).map(({ label }) => label), ["ends in a", "ends in b"]);
      for (const nothing of [undefined, null, 5, {}]) {
        await assertRejects(() => classify(nothing as unknown as string), DataError, "expected a text, or { text,");
      }
      const { model: loaded, head, description: found } = await loadHead(path, { device });
      await saveHuggingFace(loaded, `${folder}/hf`, { head: savedHead(head, found), tokenizer });
      const again = await pipeline("text-classification", `${folder}/hf`, { device });
      assertEquals(await again("aab", { topK: null }), await classify("aab", { topK: null }));
      await assertRejects(() => loadHuggingFace(`${folder}/hf`, { device }), CheckpointError, "is a classifier");

      device.fill((head as SequenceClassifier).score.weight.storage, (values) => values.fill(0.5));
      await saveAdapter(`${folder}/adapter`, applyLora(loaded, { rank: 2, head }), { taskType: "SEQ_CLS" });
      for (const name of [path, `${folder}/hf`]) {
        const { model: adapted, head } = await loadHead(name, { device, adapter: `${folder}/adapter` });
        assertEquals(adaptersOf(adapted).length, 1);
        assertEquals(new Set(await (head as SequenceClassifier).score.weight.data()), new Set([0.5]));
      }

      const state = `${path}/${run.best}/state.json`, json = JSON.parse(await Deno.readTextFile(state));
      for (
        const task of [{ ...json.task, labels: [] }, { ...json.task, problemType: "guess" }, { ...json.task, start: 1 }]
      ) {
        await Deno.writeTextFile(state, JSON.stringify({ ...json, task }));
        await assertRejects(() => loadHead(path, { device }), CheckpointError, "state.json is damaged: task is not");
      }
      await Deno.writeTextFile(state, JSON.stringify({ ...json, task: undefined }));
      const before = device.memory().tensors;
      await assertRejects(() => loadHead(path, { device }), ConfigError, "--task=classify --init_from=");
      assertEquals(device.memory().tensors, before);
    })
  ));

Deno.test("pipelines report what is missing", async () => {
  await assertRejects(
    () => pipeline("sentiment-analysis"),
    ConfigError,
    "The command finetune trains a model on rows with a text and a label: --task=classify",
  );
  await assertRejects(() => pipeline("translation" as "summarization", "gpt2"), ConfigError, "No pipeline for");
  const nothing = undefined as unknown as string;
  await assertRejects(() => pipeline("summarization", nothing), ConfigError, "needs a model");
});

Deno.test("summarization appends the hint, generates the requested number of tokens, returns the first sentences, and cuts long texts", () =>
  onDevice(async (device) => {
    const tokenizer = CharacterTokenizer.fromText("\nTL;DR: .!abcdefghij"), { vocabSize } = tokenizer;
    const model = new GPT({ vocabSize, blockSize: 40, nLayer: 1, nHead: 2, nEmbd: 16 }, { device, seed: 3 });
    const summarize = await pipeline("summarization", { model: model.eval(), tokenizer });
    const options = { maxLength: 20, seed: 7, returnTensors: true };
    const [{ summaryText, summaryTokenIds }] = await summarize("abc de.", options);
    assertEquals(summaryTokenIds!.length, 20);
    assertEquals(summaryText, tokenizer.decode(summaryTokenIds!).trim());
    const [whole, cut] = await summarize(["abcdefghij abc", "abcdefghij abc de. ab"], options);
    assertEquals(whole.summaryTokenIds!.length, 20);
    // A block of 40 tokens − 20 of the summary − 7 of the hint leaves room for 13.
    assertEquals([cut], await summarize("abcdefghij ab", options));
    const greedy = await summarize("abc", { maxNewTokens: 5, doSample: false, returnText: false, returnTensors: true });
    assertEquals(Object.keys(greedy[0]), ["summaryTokenIds"]);
    await assertRejects(() => summarize("abc", { maxLength: 33 }), ConfigError, "has no room for a text");
    assertEquals(firstSentences(' It is. "Is it?" Yes!? No. ', 3), 'It is. "Is it?" Yes!?');
    assertEquals(firstSentences("3.5 is a number. And no end", 3), "3.5 is a number. And no end");
    await assertRejects(() => summarize("", options), DataError, "the text is empty");
    const without = CharacterTokenizer.fromText(tokenizer.characters.join("").replace(";", "k"));
    const unable = await pipeline("summarization", { model, tokenizer: without });
    await assertRejects(() => unable("abc"), DataError, '"TL;DR:", which the tokenizer cannot encode. Not in the');
    await assertRejects(() => summarize("a", { sentences: 0 }), ConfigError, "sentences is 0");
  }));

Deno.test("a config.json that does not fit its head is refused with the field's name", () =>
  inFolder((folder) =>
    onDevice(async (device) => {
      const copy = async (name: string, changes: Record<string, unknown>) => {
        await Deno.mkdir(`${folder}/${name}`, { recursive: true });
        for await (const file of Deno.readDir(`${folders}/${name}`)) {
          await Deno.copyFile(`${folders}/${name}/${file.name}`, `${folder}/${name}/${file.name}`);
        }
        const path = `${folder}/${name}/config.json`, json = JSON.parse(await Deno.readTextFile(path));
        await Deno.writeTextFile(path, JSON.stringify({ ...json, ...changes }));
        return `${folder}/${name}`;
      };
      for (
        const [name, changes, message] of [
          ["classifier", { id2label: { 0: "a", 2: "b" } }, "id2label is"],
          ["classifier", { id2label: ["a", "b", "c"] }, "id2label is"],
          ["classifier", { id2label: {} }, "id2label is"],
          ["classifier", { id2label: { 0: "a", 1: "b" } }, "score.weight is [3,8], expected [2,8]"],
          ["classifier", { id2label: null }, "score.weight is [3,8], expected [2,8]"], // transformers' default
          ["classifier", { id2label: null, num_labels: -1 }, "num_labels is -1"],
          ["classifier", { problem_type: "guess" }, 'problem_type is "guess"; expected single_label_classification'],
          ["classifier", { pad_token_id: -1 }, "pad_token_id is -1"],
          [
            "classifier",
            { architectures: ["GPT2ForTokenClassification"] },
            'architectures is ["GPT2ForTokenClassification"]; supported: ',
          ],
          ["choices", { summary_type: "mean" }, 'summary_type is "mean"; expected "cls_index"'],
          ["choices", { summary_activation: "tanh" }, "summary_activation"],
          ["choices", { summary_first_dropout: 2 }, "summary_first_dropout is 2"],
        ] as const
      ) {
        const path = await copy(name, changes), before = device.memory().tensors;
        const error = await assertRejects(() => loadHead(path, { device }), CheckpointError);
        assert(error.message.includes(message), error.message);
        assertEquals(device.memory().tensors, before);
      }
      const cut = `${await copy("classifier", {})}/model.safetensors`, bytes = await Deno.readFile(cut);
      new DataView(bytes.buffer).setFloat32(bytes.length - 4, NaN, true); // in the last tensor
      await Deno.writeFile(cut, bytes);
      const before = device.memory().tensors;
      await assertRejects(() => loadHead(`${folder}/classifier`, { device }), CheckpointError, "NaN");
      assertEquals(device.memory().tensors, before);
      const path = await copy("classifier", { id2label: null, num_labels: 3 }); // the form before transformers 4
      assertEquals((await loadHead(path, { device })).description.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    })
  ));
