/** `deno task finetune` as a user runs it: its output, its files, resuming, and errors. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { finetuneDeclaration, finetuneFlags } from "../../src/cli/finetune_flags.ts";
import { parse } from "../../src/cli/command.ts";
import { createDevice } from "../../src/device/create.ts";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { GPT } from "../../src/gpt.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { finished, inFolder, readUntil, startCommand } from "../testing.ts";

const LETTERS = "abcdefgh?! ";

const start = (name: string, args: readonly string[]) => startCommand(name, ["--threads=1", ...args]);
const finetune = (...args: string[]) => finished(start("finetune", args));

/** A folder with a run of a tiny model, and 40 rows: the completion is the letter after the prompt's, three times. */
function withBase(body: (folder: string, args: string[]) => Promise<void>): Promise<void> {
  return inFolder(async (folder) => {
    const device = await createDevice("cpu", { threads: 1 }), tokenizer = CharacterTokenizer.fromText(LETTERS);
    const model = new GPT({ vocabSize: 11, blockSize: 16, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
    const description = { flags: {}, model: { ...model.config }, vocabulary: tokenizer.toJSON() };
    using run = await RunFolder.create(`${folder}/base`, description);
    await run.save({ iter: 1, model: sources(model.namedParameters()), optimizer: [], state: {} }, { best: true });
    device.close();
    const rows = Array.from({ length: 40 }, (_, i) => {
      const letter = LETTERS[i % 7], next = LETTERS[i % 7 + 1];
      return JSON.stringify({ prompt: `${letter}?`, completion: `${next.repeat(3)}!` });
    });
    await Deno.writeTextFile(`${folder}/rows.jsonl`, rows.join("\n"));
    const options = ["--learning_rate=0.03", "--batch_size=3", "--gradient_accumulation_steps=2", "--log_interval=100"];
    await body(folder, [`--data=${folder}/rows.jsonl`, `--init_from=${folder}/base`, ...options]);
  });
}

async function lastFiles(path: string): Promise<Uint8Array[]> {
  const { last } = JSON.parse(await Deno.readTextFile(`${path}/run.json`));
  const names = ["model.safetensors", "optimizer.safetensors", "state.json"];
  return await Promise.all(names.map((name) => Deno.readFile(`${path}/${last}/${name}`)));
}

Deno.test("finetune tunes a run to prompts and completions, and sample uses the result", () =>
  withBase(async (folder, args) => {
    const { code, out, err } = await finetune(...args, `--out_dir=${folder}/out`, "--num_train_epochs=15");
    assertEquals([code, err], [0, ""]);
    assertStringIncludes(
      out,
      "rows.jsonl: 36 rows to train on, 4 to evaluate on; 240 tokens, 160 of them learned\n" +
        "The tokenizer has no token that ends a text",
    );
    assertStringIncludes(out, "\nupdates: 90, 6 an epoch, device: cpu ");
    const losses = [...out.matchAll(/val loss (\d\.\d{4}),/g)].map(([, loss]) => Number(loss));
    assertEquals(losses.length, 16);
    const [first, last] = [losses[0], losses.at(-1)!];
    assert(first > 2 && last < 0.05, `from ${first} to ${last}`);
    const [, asked, said] = /\nA sample:\n(\w)\?(\w)\2\2!/.exec(out)!;
    assertEquals(said, LETTERS[LETTERS.indexOf(asked) + 1]);
    const sampled = await finished(
      start("sample", [`--out_dir=${folder}/out`, "--start=c?", "--num_samples=1", "--max_new_tokens=4"]),
    );
    assertStringIncludes(sampled.out, "c?ddd!");
  }));

Deno.test("a tuning that Ctrl-C or SIGTERM ended resumes to the same bytes, with packing and with dropout", () =>
  withBase(async (folder, args) => {
    const more = ["--packing=True", "--dropout=0.2", "--num_train_epochs=400", "--eval_interval=100", "--seed=5"];
    assertEquals((await finetune(...args, ...more, `--out_dir=${folder}/whole`)).code, 0);
    for (const [signal, status] of [["SIGINT", 130], ["SIGKILL", 137]] as const) {
      const out = `${folder}/${signal}`, child = start("finetune", [...args, ...more, `--out_dir=${out}`]);
      await readUntil(child, /saved/);
      child.kill(signal);
      const { code, out: rest } = await finished(child);
      assertEquals(code, status);
      if (signal === "SIGINT") assertMatch(rest, / deno task finetune .* --init_from=resume --out_dir=/);
      const resumed = await finetune("--init_from=resume", `--out_dir=${out}`);
      assertEquals([resumed.code, resumed.err], [0, ""]);
      assertEquals(await lastFiles(out), await lastFiles(`${folder}/whole`), signal);
    }
  }));

Deno.test("finetune reports rows that are too long, and rows without a learned token", () =>
  withBase(async (folder, args) => {
    const rows = [["ab?", "cd!"], ["a?".repeat(10), "b"], ["a?".repeat(6), "bbbbbbbb!"], ["b?", "c"]]
      .map(([prompt, completion]) => JSON.stringify({ prompt, completion }));
    const write = (name: string, some: string[]) => Deno.writeTextFile(`${folder}/${name}`, some.join("\n"));
    await write("odd.jsonl", rows);
    await write("none.jsonl", [rows[1]]);
    await write("one.jsonl", [rows[0]]);
    const on = (name: string, ...more: string[]) =>
      finetune(...args, `--data=${folder}/${name}`, `--out_dir=${folder}/out`, "--num_train_epochs=1", ...more);
    const { out } = await on("odd.jsonl");
    assertStringIncludes(out, "odd.jsonl: 2 rows to train on, 1 to evaluate on; 25 tokens, 8 of them learned\n");
    assertStringIncludes(out, "\nrows longer than 16 tokens: 2 of 4, cut at the end\n");
    assertStringIncludes(out, "\nrows without a token that is learned: 1 of 4, skipped\n");
    assertStringIncludes(
      (await on("odd.jsonl", "--truncation=keep_end")).out,
      "\nrows longer than 16 tokens: 2 of 4, cut at the beginning\n",
    );
    const error = async (...all: Parameters<typeof on>) => {
      const { code, err } = await on(...all);
      return [code, err.split("\n")[0].replaceAll(folder, "")];
    };
    assertEquals(await error("none.jsonl"), [
      1,
      "error: /none.jsonl: no row has a token that is learned; 1 are cut to 16 tokens, which their prompts fill",
    ]);
    assertEquals(await error("one.jsonl"), [
      1,
      "error: /one.jsonl has one usable row, and none to evaluate on: name another file with --eval_data",
    ]);
    assertEquals(await error("odd.jsonl", "--max_length=17"), [
      2,
      "error: --max_length=17: expected at most the model's block size, 16",
    ]);
  }));

Deno.test("finetune refuses a folder that another process writes, and a run of train", () =>
  withBase(async (folder, args) => {
    const out = `--out_dir=${folder}/out`, child = start("finetune", [...args, out, "--num_train_epochs=100000"]);
    await readUntil(child, /saved/);
    const second = await finetune(...args, out), third = await finetune("--init_from=resume", out);
    child.kill("SIGKILL");
    await finished(child);
    assertMatch(second.err, /^error: Cannot write to .*out: .*out is in use by process \d+/);
    assertMatch(third.err, /^error: .*out is in use by process \d+/);
    const trained = await finetune("--init_from=resume", `--out_dir=${folder}/base`);
    assertMatch(
      trained.err,
      /base is a run of train, which finetune cannot resume; type deno task train --init_from=resume/,
    );
    const tuned = await finished(start("train", ["--init_from=resume", out]));
    assertMatch(
      tuned.err,
      /out is a run of finetune, which train cannot resume; type deno task finetune --init_from=resume/,
    );
    const other = await finetune("--init_from=resume", out, "--packing=True");
    assertMatch(other.err, /--packing=True: the run in .*out has packing=False, which cannot be changed/);
  }));

Deno.test("conversations add their template's tokens to a model whose weights are trained, and to an adapter", () =>
  withBase(async (folder, args) => {
    const rows = Array.from({ length: 20 }, (_, i) => ({
      messages: [{ role: "user", content: `${LETTERS[i % 7]}?` }, {
        role: "assistant",
        content: `${LETTERS[i % 7 + 1]}!`,
      }],
    }));
    await Deno.writeTextFile(`${folder}/chats.jsonl`, rows.map((row) => JSON.stringify(row)).join("\n"));
    const chats = [...args, `--data=${folder}/chats.jsonl`, "--assistant_only_loss=True", "--num_train_epochs=10"];
    const none = await finetune(...chats, `--out_dir=${folder}/none`);
    assertStringIncludes(
      none.err,
      "line 1: a conversation, but the model has no chat template; choose one with --template",
    );
    const rounded = await finetune(...chats, "--template=chatml", "--lora_rank=2", "--weights=bf16");
    assertStringIncludes(rounded.err, "is stored in bf16, and rows can only be added to f32; leave out --weights");
    for (const adapter of [[], ["--lora_rank=2"]]) {
      const path = `${folder}/out${adapter.length}`, out = `--out_dir=${path}`;
      const tuned = await finetune(...chats, ...adapter, out, "--template=nanochat");
      assertEquals([tuned.code, tuned.err], [0, ""]);
      assertStringIncludes(tuned.out, "18 rows to train on, 2 to evaluate on; 180 tokens, 60 of them learned");
      assertStringIncludes(tuned.out, "\nvocab size: 20\n"); // 11 letters and 9 tokens
      assertStringIncludes(tuned.out, `\nTo chat with the model:\n  deno task chat ${out}\n`);
      const { chat_template } = JSON.parse(await Deno.readTextFile(`${path}/vocabulary.json`));
      assertStringIncludes(chat_template, "<|assistant_start|>");
      const losses = [...tuned.out.matchAll(/val loss \d\.\d{4}/g)].map(([loss]) => loss);
      const again = await finetune("--init_from=resume", "--eval_only=True", out);
      assertStringIncludes(again.out, losses.at(-1)!);
      if (adapter.length === 0) continue;
      const { last } = JSON.parse(await Deno.readTextFile(`${path}/run.json`));
      const config = JSON.parse(await Deno.readTextFile(`${path}/${last}/adapter_config.json`));
      assertEquals(config.trainable_token_indices, Array.from({ length: 9 }, (_, i) => 11 + i));
    }
  }));

const bad = {
  "--data=x.jsonl": "--init_from is missing: it names the model to tune, for example\n" +
    "deno task finetune --task=sft --data=FILE.jsonl --init_from=gpt2",
  "--init_from=gpt2": "--data is missing: it names the file of rows to learn from, for example\n" +
    "deno task finetune --task=sft --data=FILE.jsonl --init_from=gpt2",
  "--init_from=gpt2 --data=x --task=chess": `--task=chess: expected ${finetuneFlags.task.expected}`,
  "--init_from=gpt2 --data=x --train_blocks=0":
    "--train_blocks=0: this is only for --task=classify or choose or entail or similar",
  "--init_from=gpt2 --data=x --task=entail --form=gpt2":
    "--form=gpt2: entail needs the special tokens of the form gpt1; leave the flag out",
  "--init_from=gpt2 --data=x --task=classify --lora_rank=4 --train_blocks=1":
    "--train_blocks=1: an adapter is trained instead of the weights (--lora_rank)",
  "--init_from=gpt2 --data=x --task=classify --features=f":
    "--features=f: a head's inputs can be stored only if nothing but the head is trained: --train_blocks=0",
  "--init_from=gpt2 --data=x --lora_alpha=8":
    "--lora_alpha=8: this is only for an adapter; to train one, pass --lora_rank=8",
  "--init_from=gpt2 --data=x --task=choose --packing=True": "--packing=True: this is only for --task=sft",
  "--init_from=gpt2 --data=x --task=classify --template=chatml": "--template=chatml: this is only for conversations",
  "--init_from=gpt2 --data=x --label_smoothing=0.1": "--label_smoothing=0.1: this is only for --task=dpo",
  "--init_from=gpt2 --data=x --beta=0.2": "--beta=0.2: this is only for --task=grpo or rloo or dpo",
  "--init_from=gpt2 --data=x --task=dpo --loss_type=grpo":
    "--loss_type=grpo: expected sigmoid, hinge, ipo, robust for --task=dpo",
  "--init_from=gpt2 --data=x --task=grpo --reward=r.ts --loss_type=ipo":
    "--loss_type=ipo: expected dapo, grpo, bnpo, dr_grpo for --task=grpo",
  "--init_from=gpt2 --data=x --task=dpo --loss_type=ipo --label_smoothing=0.1":
    "--label_smoothing=0.1: the loss ipo has no smoothing; expected --loss_type=sigmoid or robust",
  "--init_from=gpt2 --data=x --task=dpo --beta=0":
    "--beta=0: expected a number above 0; to train without a reference, pass --reference_free=True",
  "--init_from=gpt2 --data=x --task=dpo --dropout=0.1":
    "--dropout=0.1: --task=dpo trains without dropout; leave the flag out",
  "--init_from=gpt2 --data=x --task=dpo --reference_free=True --ref_model=x":
    "--ref_model=x: there is no reference with --reference_free=True",
  "--init_from=gpt2 --data=x --task=dpo --reference_free=True --precompute_ref_log_probs=True":
    "--precompute_ref_log_probs=True: there is no reference with --reference_free=True",
  "--init_from=gpt2 --data=x --task=dpo --packing=True": "--packing=True: this is only for --task=sft",
};
for (const [line, message] of Object.entries(bad)) {
  Deno.test(`finetune ${line} is refused`, async () => {
    const error = await parse(finetuneDeclaration, line.split(" ")).catch((error) => error);
    assertEquals(error.message, message);
  });
}

Deno.test("finetune --help needs no model, and a config with an adapter gets an adapter's learning rate", () =>
  inFolder(async (folder) => {
    const { help } = await parse(finetuneDeclaration, ["--help"]);
    assertStringIncludes(help!, "--learning_rate=0.00002 ");
    const config = `${folder}/config.ts`,
      rate = async (...args: string[]) => {
        const { values } = await parse(finetuneDeclaration, [config, "--data=FILE.jsonl", "--init_from=gpt2", ...args]);
        return values.learning_rate;
      };
    await Deno.writeTextFile(config, "export default { lora_rank: 8 };");
    assertEquals([await rate(), await rate("--lora_rank=0"), await rate("--learning_rate=1")], [2e-4, 2e-5, 1]);
    const rates = { classify: [2e-4, 2e-5], dpo: [1e-5, 1e-6], reward: [1e-3, 1e-4] };
    const ofRewards = { grpo: [1e-5, 1e-6], rloo: [1e-5, 1e-6], ppo: [3e-5, 3e-6] };
    for (const [task, expected] of Object.entries({ ...rates, ...ofRewards })) {
      const flags = [`--task=${task}`, ...task in ofRewards ? ["--reward=x.ts"] : []];
      assertEquals([await rate(...flags), await rate(...flags, "--lora_rank=0")], expected, task);
    }
  }));
