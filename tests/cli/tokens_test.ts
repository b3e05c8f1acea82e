/** `prepare` and `tokenize`, and `train` and `sample` with their tokens, each in its own process. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { writePickle } from "../../src/files/pickle_writer.ts";
import { inFolder } from "../testing.ts";

const root = new URL("../../", import.meta.url);
const sentence = "The quick brown fox jumps over the lazy dog.\n";

function command(name: "prepare" | "tokenize" | "train" | "sample" | "eval", args: string[]): Deno.Command {
  const write = name === "prepare" || name === "train" ? ["--allow-write"] : [];
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      ...["--quiet", "--no-prompt", "--no-check", "--allow-env=NANOGPT_DEBUG", "--allow-read", ...write],
      `src/cli/${name}.ts`,
      ...args,
    ],
    cwd: root,
    env: { NO_COLOR: "1", NANOGPT_DEBUG: "" },
    stdout: "piped",
    stderr: "piped",
  });
}

function decode({ code, stdout, stderr }: Deno.CommandOutput): { code: number; out: string; err: string } {
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}
const run = async (...args: Parameters<typeof command>) => decode(await command(...args).output());

Deno.test("tokenize prints ids, their text, and their number", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, sentence);
    const shown = async (...args: string[]) => {
      const { code, out, err } = await run("tokenize", args);
      assertEquals([code, err], [0, ""]);
      return out;
    };
    // The ids of this sentence in the encodings of GPT-2 and GPT-4, from tiktoken.
    assertEquals(await shown("--text=The quick brown fox"), "464 2068 7586 21831\n");
    assertEquals(await shown("--text=The quick brown fox", "--tokenizer=cl100k_base"), "791 4062 14198 39935\n");
    assertEquals(await shown("--ids=464 2068,7586\n21831"), "The quick brown fox\n");
    assertEquals(await shown(`--text=FILE:${folder}/text.txt`, "--count"), "11\n");
    assertEquals(await shown("--text=<|endoftext|>", "--special_tokens=allow"), "50256\n");
  }));

Deno.test("train reads the folder that prepare writes, and sample generates text with the model", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, sentence.repeat(100));
    const out = `--out_dir=${folder}/data`;
    const prepared = await run("prepare", [`--input=${folder}/text.txt`, out]);
    assertEquals([prepared.code, prepared.err], [0, ""]);
    assertMatch(
      prepared.out,
      /^train has 990 tokens, val has 110 tokens\nvocab size: 50,257, uint16\nDone: \w+s, in .*data\n$/,
    );
    const sizes = ["--n_layer=1", "--n_head=1", "--n_embd=8", "--block_size=8", "--batch_size=2", "--threads=1"];
    const iterations = ["--max_iters=4", "--eval_iters=1", "--eval_interval=4"];
    const model = `--out_dir=${folder}/out`;
    const trained = await run("train", [`--dataset=${folder}/data`, model, ...sizes, ...iterations]);
    assertEquals([trained.code, trained.err], [0, ""]);
    assertStringIncludes(trained.out, "data: train has 990 tokens, val has 110 tokens\nvocab size: 50304\n");
    const resumed = await run("train", ["--init_from=resume", model, "--max_iters=6"]);
    assertEquals([resumed.code, resumed.err], [0, ""]);
    const sampled = await run("sample", [
      model,
      "--start=The fox",
      "--num_samples=1",
      "--max_new_tokens=9",
      "--threads=1",
    ]);
    assertEquals([sampled.code, sampled.err], [0, ""]);
    assert(sampled.out.startsWith("The fox") && sampled.out.endsWith("\n---------------\n"), sampled.out);
    // Training on the text itself uses the same tokens.
    const text = await run("train", [
      `--input=${folder}/text.txt`,
      "--tokenizer=gpt2",
      ...sizes,
      ...iterations,
      `${model}2`,
    ]);
    const steps = ({ out }: { out: string }) => out.match(/^step .*$/gm);
    assertEquals(steps(text), steps(trained));
    const other = await run("train", ["--init_from=resume", model, `--dataset=${folder}`]);
    assertStringIncludes(other.err, `error: No tokens in ${folder}: it has no train.bin\n`);
  }));

Deno.test("Ctrl-C stops prepare, and the same command finishes it", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, sentence.repeat(2_000_000)); // 90 MB: two seconds
    const args = [`--input=${folder}/text.txt`, `--out_dir=${folder}/data`, "--threads=1"];
    const child = command("prepare", args).spawn();
    const begun = () => Deno.stat(`${folder}/data/train.bin.part`).then(({ size }) => size > 0, () => false);
    let ended = false;
    void child.status.then(() => ended = true);
    while (!ended && !await begun()) await new Promise((resolve) => setTimeout(resolve, 10));
    child.kill("SIGINT");
    const stopped = decode(await child.output());
    assertEquals([stopped.code, stopped.err], [130, ""]);
    assertStringIncludes(
      stopped.out,
      `To continue, run the same command again:\n  deno task prepare ${args.join(" ")}\n`,
    );
    const { at } = JSON.parse(await Deno.readTextFile(`${folder}/data/prepare.json`));
    assert(at > 0 && at < 90e6, `${at}`);
    const finished = await run("prepare", args);
    // Each sentence has ten tokens and the newline, because its tokens do not depend on its neighbours.
    assertStringIncludes(finished.out, "train has 19,800,000 tokens, val has 2,200,000 tokens\n");
    assertEquals((await Deno.stat(`${folder}/data/val.bin`)).size, 4_400_000);
  }));

Deno.test("errors of prepare and tokenize print at most two lines", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, `<|endoftext|>${sentence}`);
    const input = `--input=${folder}/text.txt`, out = `--out_dir=${folder}/data`;
    const cases: [code: number, message: string, name: Parameters<typeof command>[0], args: string[]][] = [
      [2, "--input is missing: prepare needs --input=FILE and --out_dir=FOLDER", "prepare", [out]],
      [2, "--out_dir is missing", "prepare", [input]],
      [2, 'No tokenizer "gpt5"', "prepare", [input, out, "--tokenizer=gpt5"]],
      [1, "special token <|endoftext|>", "prepare", [input, out]],
      [1, "Cannot read", "prepare", [`--input=${folder}/nowhere`, out]],
      [1, "No tokenizer in", "tokenize", ["--text=a", `--tokenizer=${folder}`]],
      [1, "Token 50257 is outside the vocabulary", "tokenize", ["--ids=1 50257"]],
      [1, '"x1" is not a token id', "tokenize", ["--ids=1 x1"]],
      [2, "either --text=TEXT or --ids=IDS", "tokenize", []],
      [2, "the nearest flag is --count", "tokenize", ["--counts=True"]],
      [2, 'No dataset "wrong"', "train", ["--dataset=wrong", `${out}/run`]],
    ];
    for (const [code, message, name, args] of cases) {
      const result = await run(name, args), shown = `${name} ${args.join(" ")}: ${result.code}\n${result.err}`;
      assertEquals(result.code, code, shown);
      assertStringIncludes(result.err, message);
      assertMatch(result.err, /^error: .*\n(.+\n)?$/, shown);
    }
    for (const name of ["prepare", "tokenize"] as const) {
      const { code, out } = await run(name, ["--help"]);
      assertEquals(code, 0);
      assertStringIncludes(out, `deno task ${name} --`);
    }
  }));

const tiny = "--n_layer=1 --n_head=1 --n_embd=8 --block_size=8 --batch_size=2 --threads=1 --max_iters=2 --eval_iters=1"
  .split(" ");
async function succeeds(...args: Parameters<typeof command>): Promise<string> {
  const { code, out, err } = await run(...args);
  assertEquals([code, err], [0, ""]);
  return out;
}

Deno.test("train takes a text without newlines, and sample begins like the sample at the end of train", () =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/dna.txt`, "ACGT".repeat(500));
    const out_dir = `--out_dir=${folder}/out`;
    assertStringIncludes(await succeeds("train", [`--input=${folder}/dna.txt`, out_dir, ...tiny]), "A sample:");
    assertMatch(await succeeds("sample", [out_dir, "--num_samples=1", "--max_new_tokens=5"]), /^A[ACGT]{5}\n-+\n$/);
    const greedy = ["--num_samples=1", "--max_new_tokens=5", "--temperature=0", "--top_k=0", out_dir];
    assertMatch(await succeeds("sample", greedy), /^A[ACGT]{5}\n-+\n$/);
    const refused = await run("sample", [out_dir, "--start=\n"]);
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.err, "The model's tokenizer cannot encode --start. Not in the vocabulary");
    const empty = await run("sample", [out_dir, "--start="]);
    assertEquals(empty.code, 2);
    assertStringIncludes(empty.err, "--start is empty, and this model has no <|endoftext|>");
  }));

Deno.test("train and eval encode special tokens as the flag says, and an empty start is a special token", () =>
  inFolder(async (folder) => {
    const input = `--input=${folder}/text.txt`, out_dir = `--out_dir=${folder}/out`;
    await Deno.writeTextFile(`${folder}/text.txt`, `${sentence}<|endoftext|>`.repeat(40));
    const refused = await run("train", [input, out_dir, "--tokenizer=gpt2", ...tiny]);
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.err, "the special token <|endoftext|>; allow it, or encode it as ordinary text");
    assertStringIncludes(refused.err, "--special_tokens=allow or text");
    const given = [input, out_dir, "--special_tokens=allow"];
    assertStringIncludes(
      await succeeds("train", [...given, "--tokenizer=gpt2", ...tiny]),
      "train has 432 tokens, val has 48",
    );
    const judged = async (special: string) =>
      Number(/tokens scored +(\d+)/.exec(await succeeds("eval", [input, out_dir, "--threads=1", special]))![1]);
    assertEquals(await judged("--special_tokens=allow"), 40 * 12 - 1);
    assert(await judged("--special_tokens=text") > 40 * 12);
    const shown = await succeeds("sample", [out_dir, "--start=", "--num_samples=1", "--max_new_tokens=1"]);
    assertMatch(shown, /^<\|endoftext\|>/);
  }));

Deno.test("train takes nanoGPT's folders of words and of ids without a vocabulary, and sample prints them", () =>
  inFolder(async (folder) => {
    const words = new Map([[0, "C4"], [1, "D4"], [2, "rest"]]),
      bytes = new Uint8Array(
        Uint16Array.from(
          { length: 600 },
          (_, i) => i * i % 3,
        ).buffer,
      );
    for (const part of ["train", "val"]) await Deno.writeFile(`${folder}/${part}.bin`, bytes);
    for (
      const [meta, start, text] of [
        [{ vocab_size: 3, itos: words }, "rest D4", /^rest D4 ((C4|D4|rest) ){5}\n/],
        [{ vocab_size: 3 }, "2 1", /^2 1 ([012] ){5}\n/],
      ] as const
    ) {
      await Deno.writeFile(`${folder}/meta.pkl`, writePickle(meta));
      const out_dir = `--out_dir=${folder}/out${start.length}`;
      const printed = await succeeds("train", [`--dataset=${folder}`, out_dir, ...tiny]);
      assertStringIncludes(printed, "vocab size: 3");
      const options = [out_dir, "--num_samples=1", "--max_new_tokens=5"];
      assertMatch(await succeeds("sample", [...options, `--start=${start}`]), text);
      assertMatch(await succeeds("sample", options), /^(C4|0) /);
    }
  }));
