/** The commands as a user runs them, each in its own process: output, files and exit statuses. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { readUntil } from "../testing.ts";

const root = new URL("../../", import.meta.url);
const text = "the quick brown fox jumps over the lazy dog\n".repeat(40);
const tiny = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--block_size=16", "--batch_size=4", "--threads=1"];

interface Result {
  code: number;
  out: string;
  err: string;
}

function command(
  name: "train" | "sample" | "finetune",
  args: string[],
  flags = ["--allow-read", "--allow-write"],
): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", "--allow-env=NANOGPT_DEBUG", ...flags, `src/cli/${name}.ts`, ...args],
    cwd: root,
    env: { NO_COLOR: "1", NANOGPT_DEBUG: "" },
    stdout: "piped",
    stderr: "piped",
  });
}

async function run(...args: Parameters<typeof command>): Promise<Result> {
  return decode(await command(...args).output());
}

function decode({ code, stdout, stderr }: Deno.CommandOutput): Result {
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

/** Sends SIGINT when `words` are printed. Returns the output after them. */
async function interruptAt(child: Deno.ChildProcess, words: RegExp): Promise<Result> {
  await readUntil(child, words);
  child.kill("SIGINT");
  return decode(await child.output());
}

/** Runs `body` with a temporary folder that has a text. */
async function withText(body: (folder: string, input: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/text.txt`, text);
    await body(folder, `--input=${folder}/text.txt`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The bytes of the last checkpoint's weights and optimizer. */
async function lastCheckpoint(out: string): Promise<Uint8Array[]> {
  const { last } = JSON.parse(await Deno.readTextFile(`${out}/run.json`));
  return await Promise.all(["model", "optimizer"].map((name) => Deno.readFile(`${out}/${last}/${name}.safetensors`)));
}

Deno.test("train prints the lines of nanoGPT, and sample uses the result", () =>
  withText(async (folder, input) => {
    const out = `--out_dir=${folder}/out`;
    const trained = await run("train", [input, out, ...tiny, "--max_iters=20", "--eval_interval=10", "--eval_iters=2"]);
    assertEquals(trained.err, "");
    assertEquals(trained.code, 0);
    assertStringIncludes(trained.out, "train has 1,584 tokens, val has 176 tokens\nvocab size: 28\n");
    assertMatch(trained.out, /^number of parameters: [\d,]+ \(layers 1, heads 2, width 16, block size 16\)$/m);
    assertMatch(trained.out, /^tokens per iteration will be: 64, device: cpu \((wide|narrow)\), threads: 1$/m);
    assertEquals(trained.out.match(/^step \d+: train loss \d\.\d{4}, val loss \d\.\d{4}$/gm)?.length, 3);
    assertEquals(trained.out.match(/^iter \d+: loss \d\.\d{4}, [\d.]+ ms, [\d.]+k? tokens\/s$/gm)?.length, 3);
    assertStringIncludes(trained.out, `\n  deno task sample ${out}\n`);
    assert(!trained.out.includes("\x1b"), "no terminal, no control codes");

    const args = [out, "--start=the ", "--num_samples=2", "--max_new_tokens=30", "--threads=1"];
    const sampled = await run("sample", args, ["--allow-read"]);
    assertEquals(sampled.err, "");
    assertEquals(sampled.code, 0);
    const samples = sampled.out.split("\n---------------\n");
    assertEquals(samples.map((sample) => sample.length), [34, 34, 0]);
    assert(samples.slice(0, 2).every((sample) => sample.startsWith("the ")));
    assert(samples[0] !== samples[1], "one generator draws all samples");
    assertEquals((await run("sample", args, ["--allow-read"])).out, sampled.out);

    await Deno.writeTextFile(`${folder}/prompt.txt`, "the ");
    const fromFile = await run("sample", [...args, `--start=FILE:${folder}/prompt.txt`], ["--allow-read"]);
    assertEquals(fromFile.out, sampled.out);

    const runJson = async () => JSON.parse(await Deno.readTextFile(`${folder}/out/run.json`));
    const longer = await run("train", ["--init_from=resume", out, "--max_iters=30", "--eval_iters=1"]);
    assertEquals(longer.code, 0, longer.err);
    const { flags: { max_iters, eval_iters, eval_interval }, last } = await runJson();
    assertEquals([max_iters, eval_iters, eval_interval, last], [30, 1, 10, "checkpoint-000030"]);
    const nothing = await run("train", ["--init_from=resume", out]);
    assertStringIncludes(nothing.out, "max_iters=30 is reached: a higher --max_iters continues the training\n");
    const before = await Array.fromAsync(Deno.readDir(`${folder}/out`));
    const evaluated = await run("train", [input, out, ...tiny, "--eval_only=True", "--eval_iters=1"]);
    assertMatch(evaluated.out, /^step 0: .*\nDone: lowest val loss \S+ at step 0, \w+s\n$/m);
    assertEquals(await Array.fromAsync(Deno.readDir(`${folder}/out`)), before, "an evaluation writes nothing");

    await Deno.writeTextFile(`${folder}/short.txt`, text.slice(0, 400));
    const shorter = await run("train", ["--init_from=resume", out, `--input=${folder}/short.txt`, "--max_iters=40"]);
    assertEquals(shorter.code, 0, shorter.err);
    await Deno.writeTextFile(`${folder}/other.txt`, "THE QUICK BROWN FOX".repeat(40));
    const other = await run("train", ["--init_from=resume", out, `--input=${folder}/other.txt`]);
    assertEquals(other.code, 1);
    assertStringIncludes(
      other.err,
      `error: Cannot train on ${folder}/other.txt: Not in the vocabulary of 28 characters`,
    );

    const unknown = await run("sample", [out, "--start=THE Ω"], ["--allow-read"]);
    assertEquals(unknown.code, 1);
    assertStringIncludes(
      unknown.err,
      "error: The model's tokenizer cannot encode --start. Not in the vocabulary of 28 characters",
    );
    await Deno.writeTextFile(`${folder}/out/vocabulary.json`, '{"type":"character","characters":"abc"}');
    const damaged = await run("sample", [out, "--start=a"], ["--allow-read"]);
    assertEquals([damaged.code, damaged.out], [1, ""]);
    assertStringIncludes(damaged.err, "vocabulary.json has 3 characters, and the model in run.json has vocabSize 28");
  }));

Deno.test("Ctrl-C saves, and the printed command resumes to the bytes of a run without interruption", () =>
  withText(async (folder, input) => {
    const flags = [input, ...tiny, "--max_iters=1000", "--eval_interval=2000", "--eval_iters=1", "--dropout=0.1"];
    const whole = await run("train", [...flags, `--out_dir=${folder}/whole`]);
    assertEquals(whole.code, 0, whole.err);

    const child = command("train", [...flags, `--out_dir=${folder}/parts`]).spawn();
    const { code, out, err } = await interruptAt(child, /\niter 50:/);
    assertEquals(code, 130, err);
    const [, iter, resume] = /Stopped at iteration (\d+). To continue:\n {2}deno task train (.*)\n$/.exec(out)!;
    assert(Number(iter) > 50 && Number(iter) < 1000, iter);
    assertEquals(resume, [...flags, "--init_from=resume", `--out_dir=${folder}/parts`].join(" "));

    const resumed = await run("train", ["--init_from=resume", `--out_dir=${folder}/parts`]);
    assertEquals(resumed.code, 0, resumed.err);
    assertStringIncludes(resumed.out, `resuming ${folder}/parts at iteration ${iter}\n`);
    assertEquals(await lastCheckpoint(`${folder}/parts`), await lastCheckpoint(`${folder}/whole`));
  }));

Deno.test("a run that began on the grammar in place of a text resumes on the grammar", () =>
  withText(async (folder) => {
    // No permission for the network, nor for the folder with earlier downloads.
    const read = `--allow-read=.,${folder},${Deno.execPath()}`;
    const allowed = [read, "--allow-write", "--allow-env=XDG_CACHE_HOME,HOME,LOCALAPPDATA"];
    const out = `--out_dir=${folder}/out`;
    const { out: began, code, err } = await run("train", [out, ...tiny, "--max_iters=2", "--eval_iters=1"], allowed);
    assertEquals(code, 0, err);
    assertMatch(began, /^No tiny Shakespeare \(.*\): the text is generated by the grammar in data\/ instead\n/m);
    const resumed = await run("train", ["--init_from=resume", out, "--max_iters=4"]);
    assertEquals(resumed.code, 0, resumed.err);
    assert(resumed.out.startsWith("the grammar in data/: train has "), resumed.out);
  }));

Deno.test("Ctrl-C stops soon even if iterations are long", () =>
  withText(async (folder, input) => {
    const sizes = ["--n_layer=4", "--n_head=4", "--n_embd=128", "--block_size=64", "--batch_size=64", "--threads=1"];
    const flags = ["--eval_iters=1", "--max_iters=40", "--log_interval=100", `--out_dir=${folder}/out`];
    const child = command("train", [input, ...sizes, ...flags]).spawn();
    const { out } = await interruptAt(child, /\niter 0:/);
    const [, iter] = /Stopped at iteration (\d+)/.exec(out)!;
    assert(Number(iter) <= 4, `stopped at iteration ${iter}`);
  }));

Deno.test("errors print at most two lines to standard error, without a stack trace", () =>
  withText(async (folder, input) => {
    await Deno.writeTextFile(`${folder}/short.txt`, "too short");
    await Deno.writeTextFile(`${folder}/empty.txt`, "");
    await Deno.writeFile(`${folder}/latin1.txt`, Uint8Array.from({ length: 999 }, (_, i) => i % 256));
    await Deno.writeTextFile(`${folder}/config.ts`, "export default { n_layer: ");
    const out = `--out_dir=${folder}/out`;
    const cases: [code: number, message: string, ...args: Parameters<typeof command>][] = [
      [2, "the nearest flag is --batch_size", "train", ["--batchsize=3"]],
      [2, "config.ts cannot be loaded: SyntaxError", "train", [`${folder}/config.ts`]],
      [1, "nowhere.txt", "train", [`--input=${folder}/nowhere.txt`, out]],
      [1, "too short for block_size=64", "train", [`--input=${folder}/short.txt`, out]],
      [1, "empty", "train", [`--input=${folder}/empty.txt`, out]],
      [1, "not UTF-8", "train", [`--input=${folder}/latin1.txt`, out]],
      [1, "Cannot write to", "train", [input, ...tiny, `--out_dir=${folder}/text.txt/out`]],
      [1, `This begins a run: deno task finetune --data=FILE.jsonl --init_from=MODEL --out_dir=none\n`, "finetune", [
        "--init_from=resume",
        "--out_dir=none",
      ]],
      [1, `This begins a run: deno task train --out_dir=${folder}/none\n`, "train", [
        "--init_from=resume",
        `--out_dir=${folder}/none`,
      ]],
      [2, "instead, with the same flags: deno task train:dawn\n", "train", [input, out, "--device=webgpu:dawn"]],
      [2, "instead, with the same flags: deno task sample:dawn\n", "sample", [out, "--device=webgpu:dawn:software"]],
      [1, `No run in ${folder}/none: there is no such folder\n`, "sample", [`--out_dir=${folder}/none`]],
      [1, "Training this model takes more than", "train", [input, out, "--block_size=16", "--n_embd=65536"]],
      [1, "training has stopped, and no checkpoint was saved yet", "train", [
        input,
        out,
        ...tiny,
        "--learning_rate=1e30",
        "--decay_lr=False",
        "--grad_clip=0",
      ]],
    ];
    for (const [code, message, name, args] of cases) {
      const result = await run(name, args);
      const shown = `${name} ${args.join(" ")}: ${result.code}\n${result.err}`;
      assertEquals(result.code, code, shown);
      assertStringIncludes(result.err, message);
      assertMatch(result.err, /^error: .*\n(.+\n)?$/, shown);
      assert(!/^ +at |\.ts:\d+/m.test(result.err), shown);
    }
  }));
