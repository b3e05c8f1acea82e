/** Commands as processes: closed pipes and terminals, full disks, and the folder from which they are called. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Progress, write } from "../../src/cli/progress.ts";
import { DataError } from "../../src/errors.ts";
import { inFolder, readUntil } from "../testing.ts";

const root = new URL("../../", import.meta.url);
const env = { NO_COLOR: "1", NANOGPT_DEBUG: "", DENO_V8_FLAGS: Deno.env.get("DENO_V8_FLAGS") || "--no-liftoff" };
const sizes = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--block_size=16", "--batch_size=4", "--threads=1"];
const long = [...sizes, "--eval_iters=1", "--max_iters=1000000", "--eval_interval=1000000", "--log_interval=100"];

function words(name: string, args: string[]): string[] {
  const allowed = ["--allow-read", "--allow-write", "--allow-env=NANOGPT_DEBUG,INIT_CWD"];
  return [Deno.execPath(), "run", "--no-prompt", "--no-check", ...allowed, `src/cli/${name}.ts`, ...args];
}

function start([program, ...args]: string[], more: Deno.CommandOptions = {}): Deno.ChildProcess {
  return new Deno.Command(program, { args, cwd: root, env, stdout: "piped", stderr: "piped", ...more }).spawn();
}

/** Reads until `wanted` and closes the pipe, like `head`. */
async function head(child: Deno.ChildProcess, wanted: RegExp): Promise<{ code: number; err: string }> {
  await readUntil(child, wanted);
  await child.stdout.cancel();
  const [{ code }, err] = await Promise.all([child.status, new Response(child.stderr).text()]);
  return { code, err };
}

const lastOf = async (out: string) => JSON.parse(await Deno.readTextFile(`${out}/run.json`)).last;

function withText(body: (folder: string, input: string, out: string) => Promise<void>): Promise<void> {
  return inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.txt`, "the quick brown fox jumps over the lazy dog\n".repeat(40));
    await body(folder, `--input=${folder}/text.txt`, `--out_dir=${folder}/out`);
  });
}

Deno.test("train saves when its output's reader closes the pipe, and other commands end without a message", () =>
  withText(async (folder, input, out) => {
    const { code, err } = await head(start(words("train", [...long, input, out])), /\niter 100:/);
    assertEquals(code, 130, err);
    assertMatch(err, /^Standard output was closed\.\n/);
    const [, iter] = /Stopped at iteration (\d+)\. To continue:\n {2}deno task train .* --init_from=resume /.exec(err)!;
    assert(Number(iter) > 100, iter);
    assertEquals(await lastOf(`${folder}/out`), `checkpoint-${iter.padStart(6, "0")}`);

    const sampled = await head(start(words("sample", [out, "--threads=1", "--num_samples=100000"])), /\n---/);
    assertEquals(sampled, { code: 141, err: "" }); // 128 + SIGPIPE
    const folders = await head(
      start(words("prepare", [input, `--out_dir=${folder}/data`, "--tokenizer=character"]), { stdout: "piped" }),
      /Done/,
    );
    assertEquals(folders, { code: 0, err: "" });
  }));

Deno.test(
  "a message says that standard output is on a full disk",
  { ignore: Deno.build.os !== "linux" },
  () =>
    withText(async (_, input, out) => {
      const cases: Record<string, string[]> = {
        train: [...long, input, out],
        sample: ["--help"],
        tokenize: ["--text=a", "--count"],
        prepare: [input, "--out_dir=none", "--help"],
      };
      for (const [name, args] of Object.entries(cases)) {
        const shell = ["sh", "-c", '"$@" > /dev/full', "sh", ...words(name, args)];
        const { code, stderr } = await start(shell).output();
        const err = new TextDecoder().decode(stderr);
        assertEquals([code, err], [1, "error: Cannot write to standard output: No space left on device\n"], name);
      }
    }),
);

Deno.test("lines go to standard error after the output is lost, and onLost is called once", () => {
  const written: string[] = [];
  let told = 0;
  const output = {
    isTerminal: () => false,
    writeSync(bytes: Uint8Array): number {
      if (written.length === 2) throw new Error("No space left on device (os error 28)");
      written.push(new TextDecoder().decode(bytes.subarray(0, 3))); // a write may be partial
      return Math.min(3, bytes.length);
    },
  };
  const { writeSync } = Deno.stderr, stderr: string[] = [];
  Deno.stderr.writeSync = (bytes) => {
    stderr.push(new TextDecoder().decode(bytes));
    return bytes.length;
  };
  try {
    const progress = new Progress(output);
    progress.onLost = () => told++;
    progress.line("12345");
    progress.line("first");
    progress.line("second");
  } finally {
    Deno.stderr.writeSync = writeSync;
  }
  assertEquals(written, ["123", "45\n"]);
  assertEquals(stderr, ["Cannot write to standard output: No space left on device\n", "first\n", "second\n"]);
  assertEquals(told, 1);
  let thrown: unknown;
  try {
    write(output, "third");
  } catch (error) {
    thrown = error;
  }
  assert(thrown instanceof DataError);
});

const hasScript = Deno.build.os === "linux" && await Deno.stat("/usr/bin/script").then(() => true, () => false);

Deno.test(
  "a terminal that closes leaves a checkpoint",
  { ignore: !hasScript },
  () =>
    withText(async (folder, input, out) => {
      const line = words("train", [...long, input, out]).map((word) => `'${word}'`).join(" ");
      // A shell runs between the terminal and the command, as at a prompt. It prints a line when the command is done.
      const shell = `trap : HUP; ${line}; echo $? > ${folder}/status`;
      const ownShell = { ...env, SHELL: "/bin/sh" }; // script runs the command in the user's shell
      const terminal = start(["script", "-qfc", shell, "/dev/null"], { stdin: "null", env: ownShell });
      await readUntil(terminal, /\/1000000 /);
      terminal.kill("SIGKILL");
      await terminal.stdout.cancel();
      await terminal.stderr.cancel();
      const status = async () => await Deno.readTextFile(`${folder}/status`).catch(() => "");
      for (let i = 0; i < 1200 && !(await status()).endsWith("\n"); i++) {
        await new Promise((done) => setTimeout(done, 50));
      }
      assertEquals(await status(), "130\n");
      assertMatch(await lastOf(`${folder}/out`), /^checkpoint-\d{6}$/);
    }),
);

Deno.test("paths are relative to the folder in which the task is called, also in printed commands", () =>
  withText(async (folder) => {
    const task = async (name: string, ...args: string[]) => {
      const command = ["task", `--config=${new URL("deno.json", root).pathname}`, name, ...args];
      const { code, stdout, stderr } = await start([Deno.execPath(), ...command], { cwd: folder }).output();
      const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
      assertEquals(code, 0, `${out}${err}`);
      return out;
    };
    await task("prepare", "--input=text.txt", "--out_dir=data/mine", "--tokenizer=character");
    await Deno.writeTextFile(`${folder}/mine.ts`, 'export default { dataset: "mine", out_dir: "here", max_iters: 2 };');
    const trained = await task("train", "mine.ts", ...sizes, "--eval_iters=1");
    assertStringIncludes(trained, "data/mine: train has 1,584 tokens");
    assertStringIncludes(trained, "saved here/checkpoint-000003");
    const [, printed] = / {2}deno task sample (.*)\n/.exec(trained)!;
    const brief = ["--num_samples=1", "--max_new_tokens=3", "--threads=1"];
    await Deno.writeTextFile(`${folder}/start.txt`, "the fox");
    assertMatch(await task("sample", ...printed.split(" "), ...brief, "--start=FILE:start.txt"), /^the fox...\n---/s);
    await task("convert", "here", "gpt2-folder");
    assertMatch(await task("sample", "--init_from=gpt2-folder", ...brief, "--start=fox"), /^fox...\n---/s);
    assertStringIncludes(await task("eval", "--out_dir=here", "--input=text.txt", "--threads=1"), "perplexity");
    assertStringIncludes(await task("train", "config/train_shakespeare_char.py", "--help"), "--n_layer=6 ");
    await Deno.stat(`${folder}/gpt2-folder/config.json`);
  }));
