/** `deno task convert`, and `train` and `sample` with converted models, each in its own process. */
import { assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { NanoGPTFile } from "../../src/checkpoint/nanogpt.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { exists } from "../../src/files/files.ts";
import { SafetensorsFile } from "../../src/files/safetensors.ts";
import { inFolder, runCommand as run } from "../testing.ts";

const theirs = new URL("../golden/hugging_face/f32", import.meta.url).pathname; // written by transformers

/** The tensors of a safetensors file, by name. */
async function tensors(path: string): Promise<Map<string, number[]>> {
  using file = await SafetensorsFile.open(path);
  const all = new Map<string, number[]>();
  for (const name of [...file.tensors.keys()].sort()) all.set(name, [...await file.readTensor(name)]);
  return all;
}

const SIZES = { blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 8, dropout: 0, bias: true };
const RATES = { weightDecay: 0, learningRate: 1, betas: [0.9, 0.95] } as const;
const sizes = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--block_size=16", "--batch_size=4", "--threads=1"];
const brief = ["--eval_iters=1", "--eval_interval=2"];

Deno.test("convert: a run to ckpt.pt and back, and to transformers; every format samples the same text", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, "the quick brown fox jumps over the lazy dog\n".repeat(40));
    const input = `--input=${folder}/text.txt`, place = (name: string) => `${folder}/${name}`;
    const trained = await run("train", ...sizes, ...brief, "--max_iters=4", input, `--out_dir=${place("run")}`);
    assertEquals(trained.code, 0, trained.err);

    const convert = async (...args: string[]) => {
      const { code, out, err } = await run("convert", ...args);
      assertEquals([code, out, err], [0, `${args[0]} → ${args[1]}\n`, ""]);
    };
    await convert(place("run"), place("ckpt.pt"));
    await convert(place("ckpt.pt"), place("back"), `--tokenizer=${place("run")}`);
    await convert(place("run"), place("hf"));
    await convert(place("hf"), place("again.pt"));
    const last = async (run: string) => `${run}/${JSON.parse(await Deno.readTextFile(`${run}/run.json`)).last}`;
    for (const file of ["model.safetensors", "optimizer.safetensors"]) {
      const [there, back] = [`${await last(place("run"))}/${file}`, `${await last(place("back"))}/${file}`];
      assertEquals(await tensors(back), await tensors(there), file);
    }

    const greedy = ["--temperature=0", "--num_samples=1", "--max_new_tokens=20", "--start=the", "--threads=1"];
    const samples: string[] = [];
    for (const from of [[place("back")], [place("hf")], [place("again.pt"), `--tokenizer=${place("run")}`]]) {
      const { code, out, err } = await run("sample", `--init_from=${from[0]}`, ...from.slice(1), ...greedy);
      assertEquals([code, err], [0, ""]);
      samples.push(out);
    }
    assertEquals(samples[0].length, "the".length + 20 + "\n---------------\n".length);
    assertEquals(samples, [samples[0], samples[0], samples[0]]);

    const longer = await run("train", "--init_from=resume", input, `--out_dir=${place("back")}`, "--max_iters=6");
    assertEquals(longer.code, 0, longer.err);
    assertStringIncludes(longer.out, `resuming ${place("back")} at iteration 4\n`);

    // A new run begins with the Hugging Face folder and a shorter context, and can be resumed.
    const tuning = ["--max_iters=2", "--gradient_accumulation_steps=1", "--batch_size=2", ...brief, "--threads=1"];
    const from = `--init_from=${place("hf")}`, tuned = `--out_dir=${place("tuned")}`;
    const fine = await run("train", from, input, tuned, ...tuning, "--block_size=8");
    assertEquals(fine.code, 0, fine.err);
    assertStringIncludes(fine.out, "(layers 1, heads 2, width 16, block size 8)");
    assertEquals((await run("train", "--init_from=resume", input, tuned, "--max_iters=3")).code, 0);
    const wrong = await run("train", from, input, `--out_dir=${place("wrong")}`, "--n_layer=2");
    assertEquals([wrong.code, wrong.err], [
      2,
      `error: --n_layer=2: the model in ${place("hf")} has n_layer=1, which cannot be changed\n`,
    ]);
    const long = await run("train", from, input, `--out_dir=${place("wrong")}`, "--block_size=17");
    assertEquals([long.code, long.err], [
      2,
      `error: --block_size=17: the model in ${place("hf")} has block_size=16, which cannot grow\n`,
    ]);
  }));

Deno.test("convert: a Hugging Face folder gets a model card, or a copy of its source's card", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/fox.txt`, "the quick brown fox jumps over the lazy dog\n".repeat(40));
    const args = [...sizes, ...brief, "--max_iters=4", `--input=${folder}/fox.txt`, `--out_dir=${folder}/run`];
    assertEquals((await run("train", ...args)).code, 0);
    const cardOf = async (...args: string[]) => {
      const { code, err } = await run("convert", ...args);
      assertEquals([code, err], [0, ""]);
      return await Deno.readTextFile(`${args[1]}/README.md`);
    };
    const card = await cardOf(`${folder}/run`, `${folder}/a fox`, "--dtype=bfloat16", "--checkpoint=last");
    assertMatch(card, /^---\nlibrary_name: transformers\npipeline_tag: text-generation\n/);
    assertMatch(card, /^# a fox\n\nA GPT-2 language model: [\d,]+ parameters, 1 layers, 2 heads, width 16/m);
    assertMatch(card, /^`fox.txt`: [\d,]+ tokens to train on, [\d,]+ tokens held out\.$/m);
    assertStringIncludes(card, "- 4 updates.\n- `batch_size`: 4\n");
    assertStringIncludes(card, "rounded to bfloat16");
    assertEquals(card.includes(folder), false, "a card does not tell where its writer has files");
    const lines = (await Deno.readTextFile(`${folder}/run/metrics.jsonl`)).trim().split("\n").map((line) =>
      JSON.parse(line)
    );
    const evaluations = lines.filter((line) => "val_loss" in line);
    for (const { iter, train_loss, val_loss } of [evaluations[0], evaluations.at(-1)]) {
      assertStringIncludes(card, `| ${iter} | ${train_loss.toFixed(4)} | ${val_loss.toFixed(4)} |\n`);
    }

    await Deno.writeTextFile(`${folder}/a fox/README.md`, "# Of its author\n");
    assertEquals(await cardOf(`${folder}/a fox`, `${folder}/copy`), "# Of its author\n");
    assertEquals(await Deno.readTextFile(`${folder}/a fox/README.md`), "# Of its author\n");
    assertStringIncludes(await cardOf(theirs, `${folder}/theirs`), "Unknown: `f32`, from which it was converted,");
    await run("convert", `${folder}/run`, `${folder}/ckpt.pt`);
    const nanoGPT = await cardOf(
      `${folder}/ckpt.pt`,
      `${folder}/from_pt`,
      "--format=hugging_face",
      `--tokenizer=${folder}/run`,
    );
    assertStringIncludes(nanoGPT, "- 4 updates, saved in nanoGPT's format.\n");
  }));

Deno.test("convert, eval: --checkpoint selects a run's last or best checkpoint for every target format", () =>
  inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), config = { ...SIZES, vocabSize: 3 };
    const vocabulary = CharacterTokenizer.fromText("abc").toJSON();
    const saved = await RunFolder.create(`${folder}/run`, { flags: {}, model: config, vocabulary });
    const state = { iter: 1, evaluated: true, bestValLoss: 1, generator: null, offsets: [], dropoutPasses: 0 };
    const first: number[] = [];
    for (const iter of [1, 2]) {
      const model = new GPT(config, { device, seed: iter }), optimizer = model.configureOptimizers(RATES);
      first.push((await model.transformer.wpe.weight.data())[0]);
      await saved.save({
        iter,
        model: sources(model.namedParameters()),
        optimizer: sources(optimizer.namedState()),
        state: { ...state, iter, optimizerSteps: iter },
      }, { best: iter === 1 });
    }
    device.close();
    const weight = async (...flags: string[]) => {
      const to = `${folder}/hf${flags}`, { code, err } = await run("convert", `${folder}/run`, to, ...flags);
      assertEquals(code, 0, err);
      return (await tensors(`${to}/model.safetensors`)).get("transformer.wpe.weight")![0];
    };
    assertEquals([await weight(), await weight("--checkpoint=best"), await weight("--checkpoint=last")], [
      first[0],
      ...first,
    ]);
    for (const [flag, iter] of [[[], 2], [["--checkpoint=best"], 1]] as const) {
      assertEquals((await run("convert", `${folder}/run`, `${folder}/ckpt.pt`, ...flag)).code, 0);
      using file = await NanoGPTFile.open(`${folder}/ckpt.pt`);
      assertEquals(file.iter, iter);
    }
    await Deno.writeTextFile(`${folder}/text.txt`, "abccba".repeat(9));
    const figures: string[] = [];
    for (const flag of ["best", "last"]) {
      const args = [`--out_dir=${folder}/run`, `--input=${folder}/text.txt`, "--threads=1", `--checkpoint=${flag}`];
      figures.push(/perplexity +[\d.]+/.exec((await run("eval", ...args)).out)![0]);
    }
    assertNotEquals(figures[0], figures[1]);
  }));

Deno.test("convert: a folder written by transformers is converted to equal files, in one file and in shards", () =>
  inFolder(async (folder) => {
    assertEquals((await run("convert", theirs, `${folder}/same`)).code, 0);
    assertEquals(await tensors(`${folder}/same/model.safetensors`), await tensors(`${theirs}/model.safetensors`));
    assertEquals((await run("convert", theirs, `${folder}/shards`, "--max_shard_gb=0.00001")).code, 0);
    const index = JSON.parse(await Deno.readTextFile(`${folder}/shards/model.safetensors.index.json`));
    const shards = new Set<string>(Object.values(index.weight_map)), parts: [string, number[]][] = [];
    for (const shard of shards) parts.push(...await tensors(`${folder}/shards/${shard}`));
    assertEquals(shards.size > 1, true);
    assertEquals(
      new Map(parts.sort(([a], [b]) => a < b ? -1 : 1)),
      await tensors(`${theirs}/model.safetensors`),
    );
  }));

Deno.test("convert: a run to GGUF files, which sample, eval, train and convert can read", () =>
  inFolder(async (folder) => {
    const text = `${folder}/text.txt`, path = `${folder}/model.gguf`, trained = `${folder}/run`;
    await Deno.writeTextFile(text, "a cab, a bad cad; abba\n".repeat(40));
    const width = "--n_embd=32", steps = [`--input=${text}`, "--max_iters=3", "--eval_iters=2"];
    assertEquals((await run("train", ...sizes, width, ...steps, `--out_dir=${trained}`)).code, 0);
    const kept: Record<string, Uint8Array> = {};
    for (const dtype of ["float32", "f32", "f16", "float16", "bf16", "bfloat16", "q8_0"]) {
      const { code, out, err } = await run("convert", trained, path, `--dtype=${dtype}`); // replaces the previous file
      assertEquals([code, err], [0, ""]);
      assertMatch(
        out,
        /uses the exact GELU, and programs .* differ by up to \d\.\de-\d+ over 16 generated tokens; nanogpt-ts itself reads/,
      );
      assertStringIncludes(out, 'this vocabulary has none: "\\n" is used');
      kept[dtype] = await Deno.readFile(path);
    }
    for (const [long, short] of [["float32", "f32"], ["float16", "f16"], ["bfloat16", "bf16"]]) {
      assertEquals(kept[long], kept[short]);
    }
    const lengths = ["float32", "float16", "q8_0"].map((dtype) => kept[dtype].length);
    assertEquals(lengths, lengths.toSorted((a, b) => b - a));

    const judged = async (model: string) =>
      (await run("eval", model, `--input=${text}`, "--threads=1")).out.match(/perplexity +([\d.]+)/)![1];
    const perplexity = await judged(`--out_dir=${trained}`);
    assertEquals(Math.abs(Number(await judged(`--init_from=${path}`)) / Number(perplexity) - 1) < 0.01, true);
    const refused = await run("train", ...steps, `--init_from=${path}`, `--out_dir=${folder}/tuned`);
    assertEquals([refused.code, await exists(`${folder}/tuned`)], [2, false]);
    assertStringIncludes(refused.err, `${path} is in q8_0 (token_embd.weight)`);
    assertStringIncludes(refused.err, "\nUse f32");
    await Deno.writeFile(path, kept.float32);
    assertEquals(await judged(`--init_from=${path}`), perplexity);
    const sampled = await run("sample", `--init_from=${path}`, "--num_samples=1", "--max_new_tokens=5", "--start=cab");
    assertMatch(sampled.out, /^cab[^]{5}\n-+\n$/);
    const tuned = await run("train", ...steps, `--init_from=${path}`, `--out_dir=${folder}/tuned`, "--batch_size=2");
    assertEquals([tuned.code, tuned.err], [0, ""]);
    assertEquals((await run("convert", path, `${folder}/again.gguf`)).code, 0);
    assertEquals(await Deno.readFile(`${folder}/again.gguf`), kept.float32);
    assertEquals((await run("convert", path, `${folder}/hf`)).code, 0);
    assertEquals((await run("convert", path, `${folder}/ckpt.pt`)).code, 0);
    assertEquals([...Deno.readDirSync(folder)].filter(({ name }) => /new|lock|part/.test(name)), []);
  }));

Deno.test("convert: a conversion that is not possible prints a reason and leaves no files", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/full`);
    await Deno.writeTextFile(`${folder}/full/file`, "");
    const ckpt = new URL("../golden/torch_files/ckpt.pt", import.meta.url).pathname, to = `${folder}/to`;
    const cases: [number, string, string[]][] = [
      [2, "convert takes two names, FROM and TO: deno task convert out out/ckpt.pt", [theirs]],
      [2, `No model "${folder}/none"`, [`${folder}/none`, to]],
      [2, "Only a ckpt.pt can be converted to a run", [theirs, to, "--format=run"]],
      [2, "--dtype=int8: expected float32 or float16 or bfloat16", [theirs, to, "--dtype=int8"]],
      [2, "Unknown flag --dtpe: the nearest flag is --dtype", [theirs, to, "--dtpe=float16"]],
      [1, `${folder}/full already exists`, [theirs, `${folder}/full`]],
      [1, "Cannot read", [`${folder}/none.pt`, to]],
      [1, "does not belong to", [ckpt, to, "--tokenizer=gpt2"]],
      [1, "it is GPT-2's, because a ckpt.pt stores no tokenizer and its dataset has no data/", [ckpt, to]],
      [2, "--checkpoint=last: FROM is not a run", [theirs, to, "--checkpoint=last"]],
      [2, "--dtype=q8_0: only a GGUF file (NAME.gguf) can have weights in eight bits", [theirs, to, "--dtype=q8_0"]],
      [2, "--max_shard_gb=1: this is only for a Hugging Face folder", [theirs, `${to}.gguf`, "--max_shard_gb=1"]],
      [1, "No tokenizer in", [theirs, `${to}.gguf`]],
      [2, "--checkpoint=last: FROM is not a run", [`${folder}/none.gguf`, to, "--checkpoint=last"]],
      [1, "Cannot read", [`${folder}/none.gguf`, to]],
      [2, "--dtype=float16: this is only for a Hugging Face folder or a GGUF file", [
        theirs,
        `${to}.pt`,
        "--dtype=float16",
      ]],
      [2, "--max_shard_gb=1: this is only for a Hugging Face folder", [ckpt, to, "--max_shard_gb=1"]],
      [2, "--tokenizer=gpt2: a ckpt.pt does not store a tokenizer", [theirs, `${to}.pt`, "--tokenizer=gpt2"]],
    ];
    for (const [status, message, args] of cases) {
      const { code, out, err } = await run("convert", ...args);
      assertEquals([code, out], [status, ""], err);
      assertStringIncludes(err, message);
    }
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name), ["full"]);
    assertStringIncludes((await run("convert", "--help")).out, "deno task convert FROM TO");
  }));
