/** `deno task finetune` for labels and choices, then `eval` and `convert`, as a user runs them. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { pipeline } from "../../src/pretrained/pipeline.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { inFolder, runCommand } from "../testing.ts";

const run = (name: string, ...args: string[]) =>
  runCommand(name, ...name === "convert" ? [] : ["--threads=1"], ...args);

async function works(name: string, ...args: string[]): Promise<string> {
  const { code, out, err } = await run(name, ...args);
  assertEquals([code, err], [0, ""]);
  return out;
}
async function fails(message: string, name: string, ...args: string[]): Promise<void> {
  const { code, err } = await run(name, ...args);
  assertStringIncludes(err, `error: ${message}`);
  assert(code > 0);
}

/**
 * Makes a folder for a test, with an untrained model of the letters a to f and with files of rows. In labels.jsonl and
 * pairs.jsonl, the last letter determines the label. In choices.jsonl, the right choice is an a.
 */
function withBase(body: (folder: string, args: string[]) => Promise<void>): Promise<void> {
  return inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), tokenizer = CharacterTokenizer.fromText("abcdef");
    const model = new GPT({ vocabSize: 6, blockSize: 16, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
    const description = { flags: {}, model: { ...model.config }, vocabulary: tokenizer.toJSON() };
    using base = await RunFolder.create(`${folder}/base`, description);
    await base.save({ iter: 1, model: sources(model.namedParameters()), optimizer: [], state: {} }, { best: true });
    device.close();
    const word = (i: number, end: string) => "bcdef"[i % 5] + "cdefb"[(i * 3) % 5] + end;
    const lines = (of: (i: number) => object) => Array.from({ length: 40 }, (_, i) => JSON.stringify(of(i))).join("\n");
    const labelled = (i: number) => ({ text: word(i, "af"[i % 2]), label: ["yes", "no"][i % 2] });
    const choice = (i: number) => ({ context: word(i, "b"), choices: ["b", "c"].with(i % 2, "a"), label: i % 2 });
    const pair = (i: number) => ({ premise: word(i, "b"), hypothesis: word(i + 1, "af"[i % 2]), label: i % 2 });
    await Deno.writeTextFile(`${folder}/labels.jsonl`, lines(labelled));
    await Deno.writeTextFile(`${folder}/choices.jsonl`, lines(choice));
    await Deno.writeTextFile(`${folder}/pairs.jsonl`, lines(pair));
    const rates = ["--learning_rate=0.02", "--batch_size=6", "--num_train_epochs=10", "--log_interval=100"];
    await body(folder, [`--init_from=${folder}/base`, ...rates]);
  });
}

Deno.test("a classifier is trained, evaluated, used, converted and trained further; its labels stay", () =>
  withBase(async (folder, args) => {
    const data = `--data=${folder}/labels.jsonl`, out = `--out_dir=${folder}/out`;
    const said = await works("finetune", ...args, "--task=classify", data, out);
    assertStringIncludes(said, "36 rows to train on, 4 to evaluate on\nsingle_label_classification: no, yes\n");
    assertMatch(said, /step 60: train loss .*, train accuracy 1\.0000, val accuracy 1\.0000/);
    assertStringIncludes(said, `pipeline("text-classification", "${folder}/out")`);
    assertStringIncludes(await works("eval", data, out), "accuracy       1.0000\nrows           40\n");
    assertStringIncludes(await works("convert", `${folder}/out`, `${folder}/hf`), `${folder}/hf`);
    const classify = await pipeline("text-classification", `${folder}/hf`);
    assertEquals((await classify(["bba", "bcf"])).map(({ label }) => label), ["yes", "no"]);
    classify.close();
    const left = await works("convert", `${folder}/out`, `${folder}/out.gguf`);
    assertStringIncludes(left, `${folder}/out has a head, which ${folder}/out.gguf cannot store: the head is left out`);

    const more = await works("finetune", "--init_from=resume", out, "--num_train_epochs=11");
    assertStringIncludes(more, "at iteration 60\nstep 66:");
    const on = [`--init_from=${folder}/hf`, "--task=classify", `--out_dir=${folder}/on`, "--num_train_epochs=1"];
    assertMatch(await works("finetune", ...on, data), /step 0: .* val accuracy 1\.0000/); // the run begins with the trained head
    await works("finetune", ...on.with(2, `--out_dir=${folder}/lora`), data, "--lora_rank=2", "--learning_rate=0.01");
    const [step] = [...Deno.readDirSync(`${folder}/lora`)].filter(({ name }) => name.startsWith("checkpoint-"));
    await works("convert", `${folder}/hf`, `${folder}/merged`, `--adapter=${folder}/lora/${step.name}`);
    await works("convert", `${folder}/lora`, `${folder}/run`); // merges the run's own adapter, which gives equal weights
    const weights = ["merged", "run"].map((name) => Deno.readFileSync(`${folder}/${name}/model.safetensors`));
    assertEquals(weights[0], weights[1]);
    await Deno.writeTextFile(
      `${folder}/other.jsonl`,
      ["no", "yes", "maybe"].map((label) => `{"text":"ab","label":"${label}"}\n`).join(""),
    );
    const others = "the data have 3 classes, but the model has 2 labels: no, yes";
    await fails(others, "finetune", ...on, `--data=${folder}/other.jsonl`, `--eval_data=${folder}/labels.jsonl`);
    await fails("--stride=4: this is only for a text (--input), not for rows", "eval", data, out, "--stride=4");
    await fails(
      `${folder}/base has no head for labels or choices\nThe command finetune trains one: `,
      "eval",
      data,
      `--init_from=${folder}/base`,
    );
    await fails(
      `${folder}/hf/config.json is a classifier, which cannot generate text`,
      "sample",
      `--init_from=${folder}/hf`,
    );
  }));

Deno.test("the inputs of a frozen model's head are computed once, and read when the run is resumed", () =>
  withBase(async (folder, args) => {
    const file = `${folder}/seen.safetensors`,
      rest = ["--task=classify", `--data=${folder}/labels.jsonl`, "--train_blocks=0"];
    const through = await works("finetune", ...args, ...rest, `--out_dir=${folder}/a`);
    const seen = await works("finetune", ...args, ...rest, `--out_dir=${folder}/b`, `--features=${file}`);
    assertStringIncludes(seen, `features are saved in ${file}\n`);
    const steps = (out: string) => out.split("\n").filter((line) => line.startsWith("step "));
    assertEquals(steps(seen), steps(through));
    const more = await works("finetune", "--init_from=resume", `--out_dir=${folder}/b`, "--num_train_epochs=11");
    assertStringIncludes(more, `features are read from ${file}\n`);
    await Deno.copyFile(`${folder}/choices.jsonl`, `${folder}/labels.jsonl`);
    await fails(
      `${folder}/labels.jsonl, line 1: no column text`,
      "finetune",
      ...args,
      ...rest,
      `--out_dir=${folder}/c`,
    );
  }));

Deno.test("choices, entailment and similarity are trained and evaluated; GPT-1's heads cannot be converted", () =>
  withBase(async (folder, args) => {
    for (const [task, file] of [["choose", "choices"], ["entail", "pairs"], ["similar", "pairs"]]) {
      const data = `--data=${folder}/${file}.jsonl`, out = `--out_dir=${folder}/${task}`;
      const longer = task === "choose" ? [] : ["--num_train_epochs=40", "--lm_weight=0.01", "--eval_interval=240"];
      await works("finetune", ...args, ...longer, `--task=${task}`, data, out);
      const accuracy = Number(/accuracy +([\d.]+)/.exec(await works("eval", data, out))![1]);
      assert(accuracy > (task === "choose" ? 0.95 : 0.8), `${task}: ${accuracy}`);
    }
    await works("convert", `${folder}/choose`, `${folder}/hf`);
    assertStringIncludes(
      await works("eval", `--data=${folder}/choices.jsonl`, `--init_from=${folder}/hf`),
      "rows           40",
    );
    const form = "The head is in GPT-1's form, with a bias";
    await fails(form, "convert", `${folder}/entail`, `${folder}/no`);
    const classify = await pipeline("text-classification", `${folder}/entail`);
    assertEquals((await classify({ text: "bcb", textPair: "cda" }, { topK: null })).length, 2);
    classify.close();
  }));
