/**
 * Commands with folders and texts that already exist, or that another process writes. Each command has its own process.
 */
import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { exists } from "../../src/files/files.ts";
import { Lock } from "../../src/files/locks.ts";
import { inFolder } from "../testing.ts";

const root = new URL("../../", import.meta.url);
const tiny = [
  ...["--n_layer=1", "--n_head=2", "--n_embd=32", "--block_size=16", "--batch_size=8", "--threads=1", "--eval_iters=2"],
];
const fox = "the quick brown fox jumps over the lazy dog\n".repeat(40), dog = fox.split("").reverse().join("");

function command(name: "train" | "sample" | "prepare" | "convert", args: string[], env = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: [
      ...[
        "run",
        "--quiet",
        "--no-prompt",
        "--no-check",
        "--allow-env=NANOGPT_DEBUG,XDG_CACHE_HOME,INIT_CWD",
        "--allow-read",
        "--allow-write",
      ],
      ...[new URL(`src/cli/${name}.ts`, root).href, ...args],
    ],
    cwd: root,
    env: { NO_COLOR: "1", NANOGPT_DEBUG: "", XDG_CACHE_HOME: "/nowhere", INIT_CWD: "", ...env }, // no network, and no earlier download
    stdout: "piped",
    stderr: "piped",
  });
}

async function run(...args: Parameters<typeof command>) {
  const { code, stdout, stderr } = await command(...args).output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

/** Runs `body` when a command has printed `words`, and then kills the command with SIGKILL. */
async function beside(child: Deno.ChildProcess, words: string, body: () => Promise<void>): Promise<void> {
  const decoder = new TextDecoder();
  let shown = "", reached = () => {};
  const there = new Promise<void>((resolve) => reached = resolve);
  const reading = (async () => {
    for await (const chunk of child.stdout) {
      shown += decoder.decode(chunk, { stream: true });
      if (shown.includes(words)) reached();
    }
    reached();
  })();
  try {
    await there;
    assertStringIncludes(shown, words);
    await body();
  } finally {
    child.kill("SIGKILL");
    await Promise.all([reading, child.stderr.cancel(), child.status]);
  }
}

/** A folder with two texts of the same characters, and a function that trains in it, by default on the first text. */
const withTexts = (
  body: (
    folder: string,
    train: (...args: string[]) => Promise<Awaited<ReturnType<typeof run>>>,
  ) => Promise<void>,
) =>
  inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/fox.txt`, fox);
    await Deno.writeTextFile(`${folder}/dog.txt`, dog);
    await body(folder, (...args) => run("train", [`--out_dir=${folder}/out`, ...args]));
  });
const runJson = async (out: string) => JSON.parse(await Deno.readTextFile(`${out}/run.json`));

Deno.test("a second run in the same folder is refused, and the first can be resumed after SIGKILL", () =>
  withTexts(async (folder, train) => {
    const out = `${folder}/out`, input = `--input=${folder}/fox.txt`;
    const flags = [input, ...tiny, "--eval_interval=20", "--max_iters=1000000", "--log_interval=1000000"];
    const child = command("train", [...flags, `--out_dir=${out}`]).spawn();
    await beside(child, "saved ", async () => {
      for (const args of [[input, ...tiny, "--max_iters=1"], ["--init_from=resume", "--max_iters=1"]]) {
        const { code, err } = await train(...args);
        assertEquals(code, 1);
        assertMatch(err, /^error: .*\/out is in use by process \d+ since [\d-]+ [\d:]+ UTC\n$/);
        assertStringIncludes(err, ` process ${child.pid} `);
      }
      const evaluated = await train("--init_from=resume", "--eval_only=True"); // a reader
      assertEquals([evaluated.code, evaluated.err], [0, ""]);
    });
    assert(!await exists(`${out}.old-1`));
    const { last } = await runJson(out), iter = Number(last.slice("checkpoint-".length));
    const resumed = await train("--init_from=resume", `--max_iters=${iter + 1}`);
    assertEquals([resumed.code, resumed.err], [0, ""]);
    assertStringIncludes(resumed.out, `resuming ${out} at iteration ${iter}\n`);
  }));

Deno.test("sample loads a model while a run saves again and again", () =>
  withTexts(async (folder) => {
    const out = `--out_dir=${folder}/out`, often = ["--eval_interval=1", "--eval_iters=1", "--max_iters=1000000"];
    const child = command("train", [out, `--input=${folder}/fox.txt`, ...tiny, ...often]).spawn();
    await beside(child, "saved ", async () => {
      for (let i = 0; i < 6; i++) {
        const args = [out, "--num_samples=1", "--max_new_tokens=4", "--threads=1"];
        const { code, err } = await run("sample", args);
        assertEquals([code, err], [0, ""]);
      }
    });
  }));

Deno.test("a new run in the folder of a finished run moves the old run and prints where", () =>
  withTexts(async (folder, train) => {
    const flags = [`--input=${folder}/fox.txt`, ...tiny, "--max_iters=4", "--eval_interval=2"], out = `${folder}/out`;
    assertEquals((await train(...flags)).code, 0);
    const bytes = async (out: string) => await Deno.readFile(`${out}/${(await runJson(out)).last}/model.safetensors`);
    const before = await bytes(out);
    const again = await train(...flags, "--seed=7");
    assertEquals([again.code, again.err], [0, ""]);
    assert(again.out.startsWith(`The older run in ${out} was moved to ${out}.old-1\n`), again.out);
    assertEquals(await bytes(`${out}.old-1`), before);
    assertNotEquals(await bytes(out), before);
    const sampled = await run("sample", [`--out_dir=${out}.old-1`, "--num_samples=1", "--max_new_tokens=4"]);
    assertEquals(sampled.code, 0, sampled.err);
  }));

Deno.test("a run that is resumed with another text prints a note, and its best checkpoint is from that text", () =>
  withTexts(async (folder, train) => {
    const out = `${folder}/out`,
      input = `--input=${folder}/fox.txt`,
      differs = (path: string) =>
        `${path} is not the data that this run was trained on before: the next evaluation counts as the best so far\n`;
    const flags = [...tiny, "--eval_interval=50", "--always_save_checkpoint=False", "--log_interval=100"];
    const rates = ["--learning_rate=0.01", "--warmup_iters=5", "--decay_lr=False"];
    assertEquals((await train(input, ...flags, ...rates, "--max_iters=200")).code, 0);
    const same = await train("--init_from=resume", "--max_iters=201");
    assert(!same.out.includes("trained on before"), same.out);

    const other = await train("--init_from=resume", `--input=${folder}/dog.txt`, "--max_iters=400");
    assertEquals([other.code, other.err], [0, ""]);
    assertStringIncludes(other.out, differs(`${folder}/dog.txt`));
    const { best } = await runJson(out);
    assert(Number(best.slice("checkpoint-".length)) > 201, best);
    const greedy = ["--start=god ", "--temperature=0", "--num_samples=1", "--max_new_tokens=16", "--threads=1"];
    const sampled = await run("sample", [`--out_dir=${out}`, ...greedy]);
    assertStringIncludes(dog.repeat(2), sampled.out.split("\n-----")[0], "not the fox's model");

    await Deno.writeTextFile(`${folder}/dog.txt`, dog.replace("god", "dog")); // of the same length
    const changed = await train("--init_from=resume", "--max_iters=401");
    assertStringIncludes(changed.out, differs(`${folder}/dog.txt`));
  }));

Deno.test("data to train on: flags override the stored flags, and two names that contradict are an error", () =>
  withTexts(async (folder, train) => {
    const out = `${folder}/out`,
      input = `--input=${folder}/fox.txt`,
      data = `${folder}/data`,
      brief = ["--max_iters=2"];
    await Deno.writeTextFile(`${folder}/both.ts`, `export default { input: "a", dataset: "b" };`);
    for (
      const [args, message] of [
        [
          [input, "--dataset=shakespeare"],
          `--input=${folder}/fox.txt --dataset=shakespeare: both name the data to train on`,
        ],
        [[`${folder}/both.ts`], "--input=a --dataset=b: both name"],
      ] as const
    ) {
      const { code, err } = await train(...args, ...tiny, ...brief);
      assertEquals(code, 2, err);
      assertStringIncludes(err, message);
    }
    await Deno.writeTextFile(`${folder}/config.ts`, `export default { dataset: "nowhere" };`);
    const began = await train(`${folder}/config.ts`, input, ...tiny, ...brief); // a flag overrides the config file
    assertEquals([began.code, began.err], [0, ""]);
    assert(began.out.startsWith(`${folder}/fox.txt: train has`), began.out);
    const resume = (...args: string[]) => train("--init_from=resume", "--max_iters=4", ...args);
    const stays = await resume(`${folder}/config.ts`);
    assert(stays.out.startsWith(`${folder}/fox.txt: train has`), stays.out + stays.err);

    const none = await resume("--dataset=none");
    assertEquals(none.code, 2);
    assertStringIncludes(none.err, 'No dataset "none"');
    const prepared = await run("prepare", [`--input=${folder}/dog.txt`, `--out_dir=${data}`, "--tokenizer=character"]);
    assertEquals(prepared.code, 0, prepared.err);
    const moved = await resume(`--dataset=${data}`, "--max_iters=8");
    assertEquals([moved.code, moved.err], [0, ""]);
    assert(moved.out.startsWith(`${data}: train has`), moved.out);
    const { flags } = await runJson(out);
    assertEquals([flags.dataset, flags.input], [data, ""]);

    const wrong = await train(`--dataset=${data}`, "--tokenizer=gpt2", ...tiny, ...brief);
    assertEquals(wrong.code, 2, wrong.err);
    assertStringIncludes(wrong.err, `tokenizer=gpt2: ${data} was made with a different tokenizer`);
    const right = await train(`--dataset=${data}`, "--tokenizer=character", ...tiny, ...brief);
    assertEquals(right.code, 0, right.err);
  }));

Deno.test("a run can be resumed from any folder, and on a device without threads", () =>
  withTexts(async (folder) => {
    const from = async (cwd: string, ...args: string[]) => {
      const env = { INIT_CWD: cwd }; // set by deno task to the folder in which it was called
      const { code, stdout, stderr } = await command("train", [...args, `--out_dir=${folder}/out`], env).output();
      return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
    };
    const elsewhere = `${folder}/else/where`, resume = "--init_from=resume";
    await Deno.mkdir(elsewhere, { recursive: true });
    assertEquals((await from(folder, "--input=fox.txt", ...tiny, "--max_iters=1")).err, "");
    assertEquals((await runJson(`${folder}/out`)).flags.input, `${folder}/fox.txt`);
    const longer = await from(elsewhere, resume, "--max_iters=2");
    assertEquals([longer.code, longer.err], [0, ""]);
    assert(longer.out.startsWith(`${folder}/fox.txt: train has`), longer.out);

    // A run of an older version stores the path as it was typed.
    const json = await runJson(`${folder}/out`), older = { ...json, flags: { ...json.flags, input: "fox.txt" } };
    await Deno.writeTextFile(`${folder}/out/run.json`, JSON.stringify(older));
    assertEquals((await from(folder, resume, "--max_iters=3")).err, "");
    assertEquals((await runJson(`${folder}/out`)).flags.input, `${folder}/fox.txt`);

    const prepared = await run("prepare", [
      `--input=${folder}/fox.txt`,
      `--out_dir=${folder}/mine`,
      "--tokenizer=character",
    ]);
    assertEquals(prepared.err, "");
    assertEquals((await from(folder, resume, "--dataset=./mine", "--max_iters=6")).err, "");
    const dataset = await from(elsewhere, resume, "--max_iters=8");
    assert(dataset.out.startsWith(`${folder}/./mine: train has`), dataset.out + dataset.err);

    const typed = await from(folder, resume, "--device=reference", "--threads=1");
    assertEquals([typed.code, typed.err], [1, "error: The device reference has no option threads; it has none\n"]);
    const stored = await from(folder, resume, "--device=reference", "--max_iters=10");
    assertEquals([stored.code, stored.err], [0, ""]);
    assertStringIncludes(
      stored.out,
      "--threads=1, with which the run began, is ignored: reference has no threads\n",
    );
  }));

Deno.test("--dataset=shakespeare_char is an error if the text cannot be downloaded", () =>
  withTexts(async (folder, train) => {
    await Deno.writeTextFile(`${folder}/config.ts`, `export default { dataset: "shakespeare_char" };`);
    for (const named of ["--dataset=shakespeare_char", "--dataset=shakespeare", `${folder}/config.ts`]) {
      const { code, err } = await train(named, ...tiny, "--max_iters=1");
      assertEquals(code, 1, err);
      assertMatch(
        err,
        /^error: Cannot download tiny Shakespeare, the dataset shakespeare(_char)?: .*\n.*--input=FILE .*\n$/,
      );
    }
    assert(!await exists(`${folder}/out`));
  }));

Deno.test("prepare refuses a folder that another prepare writes", () =>
  withTexts(async (folder) => {
    const out = `--out_dir=${folder}/data`;
    {
      using _ = await Lock.take(`${folder}/data`); // like a prepare in another terminal
      const { code, err } = await run("prepare", [`--input=${folder}/dog.txt`, out]);
      assertEquals(code, 1);
      assertStringIncludes(
        err,
        `error: Cannot write to ${folder}/data: ${folder}/data is in use by process ${Deno.pid} `,
      );
      assertEquals(await Array.fromAsync(Deno.readDir(`${folder}/data`), ({ name }) => name), [".lock"]);
    }
    assertEquals((await run("prepare", [`--input=${folder}/dog.txt`, out])).code, 0);
  }));

Deno.test("convert and train note that a ckpt.pt has no optimizer state", () =>
  withTexts(async (folder, train) => {
    const flags = [`--input=${folder}/fox.txt`, ...tiny, "--max_iters=2", "--eval_interval=2"], place = `${folder}/`;
    assertEquals((await train(...flags)).code, 0);
    const convert = (from: string, to: string) =>
      run("convert", [place + from, place + to, ...(to.endsWith("run") ? [`--tokenizer=${folder}/out`] : [])]);
    assertEquals((await convert("out", "hf")).code, 0); // weights alone
    assertEquals((await convert("hf", "weights.pt")).code, 0);
    {
      using _ = await Lock.take(`${folder}/run`, { beside: true });
      const { code, err } = await convert("weights.pt", "run");
      assertEquals(code, 1);
      assertStringIncludes(err, `${folder}/run is in use by process ${Deno.pid} since`);
    }
    const made = await convert("weights.pt", "run");
    assertEquals([made.code, made.err], [0, ""]);
    assertStringIncludes(made.out, "weights.pt has no optimizer state: AdamW's moments begin at zero\n");
    assert(!await exists(`${folder}/run.lock`));

    assertEquals((await convert("out", "whole.pt")).code, 0);
    assertEquals((await convert("whole.pt", "whole-run")).out, `${folder}/whole.pt → ${folder}/whole-run\n`);
  }));

Deno.test("a byte-order mark at the beginning is not a character, and elsewhere is printed as its code point", () =>
  withTexts(async (folder, train) => {
    await Deno.writeTextFile(`${folder}/mark.txt`, `\ufeff${fox}`);
    const flags = [...tiny, "--max_iters=2"];
    const trained = await train(`--input=${folder}/mark.txt`, ...flags);
    assertStringIncludes(trained.out, "vocab size: 28\n");
    const prepared = await run("prepare", [
      `--input=${folder}/mark.txt`,
      `--out_dir=${folder}/data`,
      "--tokenizer=character",
    ]);
    assertStringIncludes(prepared.out, "train has 1,584 tokens, val has 176 tokens\nvocab size: 28,");
    const unknown = await run("sample", [`--out_dir=${folder}/out`, "--start=the\ufeff\u200b\u0301"]);
    assertEquals(unknown.code, 1);
    assertStringIncludes(unknown.err, String.raw`of 28 characters: "\u{feff}", "\u{200b}", "\u{301}"`);
  }));
