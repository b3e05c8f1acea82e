/** `deno task finetune --task=grpo` and `rloo` as a user runs them: output, files, resuming, and errors. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { RunFolder } from "../../src/checkpoint/run_folder.ts";
import { sources } from "../../src/checkpoint/tensors.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT } from "../../src/gpt.ts";
import { CharacterTokenizer } from "../../src/tokenizer/character.ts";
import { finished, inFolder, readUntil, startCommand } from "../testing.ts";

const LETTERS = "abcdefgh?! ";

const start = (...args: string[]) => startCommand("finetune", ["--threads=1", ...args]);
const finetune = (...args: string[]) => finished(start(...args));

async function makeRun(path: string, letters: string): Promise<void> {
  const device = await createDevice("cpu", { threads: 1 }), tokenizer = CharacterTokenizer.fromText(letters);
  const model = new GPT({ vocabSize: 11, blockSize: 16, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
  const description = { flags: {}, model: { ...model.config }, vocabulary: tokenizer.toJSON() };
  using run = await RunFolder.create(path, description);
  await run.save({ iter: 1, model: sources(model.namedParameters()), optimizer: [], state: {} }, { best: true });
  device.close();
}

/** A folder with a run of a tiny model, prompts, and a reward that counts the letter named in the prompt's row. */
function withBase(body: (folder: string, args: string[]) => Promise<void>): Promise<void> {
  return inFolder(async (folder) => {
    await makeRun(`${folder}/base`, LETTERS);
    const rows = Array.from(
      { length: 20 },
      (_, i) => ({ prompt: `${"ab"[i % 2]}?`.repeat(1 + i % 3), wanted: "c" }),
    );
    await Deno.writeTextFile(`${folder}/prompts.jsonl`, rows.map((row) => JSON.stringify(row)).join("\n"));
    await Deno.writeTextFile(
      `${folder}/wanted.ts`,
      "export default (_: string, completion: string, { more }: { more: { wanted: string } }) =>\n" +
        "  completion.split(more.wanted).length - 1;\n",
    );
    const files = [`--data=${folder}/prompts.jsonl`, `--init_from=${folder}/base`, `--reward=${folder}/wanted.ts`];
    const lengths = ["--fixed_length=True", "--max_completion_length=5", "--batch_size=16", "--learning_rate=0.02"];
    await body(folder, [...files, ...lengths, "--log_interval=10", "--eval_interval=20", "--max_iters=40"]);
  });
}

async function lastFiles(path: string): Promise<Uint8Array[]> {
  const { last } = JSON.parse(await Deno.readTextFile(`${path}/run.json`));
  const names = ["model.safetensors", "optimizer.safetensors", "state.json"];
  return await Promise.all(names.map((name) => Deno.readFile(`${path}/${last}/${name}`)));
}

Deno.test("finetune --task=grpo raises the reward, prints measures and an answer, and sample uses the result", () =>
  withBase(async (folder, args) => {
    const { code, out, err } = await finetune("--task=grpo", ...args, `--out_dir=${folder}/out`);
    assertEquals([code, err], [0, ""]);
    assertStringIncludes(
      out,
      "prompts.jsonl: 18 prompts to learn on, 2 to evaluate on; the longest has 6 tokens, an answer at most 5\n",
    );
    assertStringIncludes(out, "\nrewards: wanted\nthe loss of an evaluation is the negative mean reward");
    assertStringIncludes(out, "\nupdates: 40, 9 an epoch, device: cpu ");
    const rewards = [...out.matchAll(/val reward (\d\.\d{4})/g)].map(([, reward]) => Number(reward));
    assertEquals(rewards.length, 3);
    assert(rewards[0] < 2 && rewards[2] > 4, `${rewards}`);
    assertMatch(out, /\n {2}"[ab?]+" → "ccccc", reward 5\.0000\n/);
    assertMatch(
      out,
      /\niter 10: loss -?\d\.\d{4}, reward \d\.\d{4}, entropy \d\.\d{4}, clip_ratio\/region_mean 0\.0000, /,
    );
    const lines = (await Deno.readTextFile(`${folder}/out/metrics.jsonl`)).trimEnd().split("\n").map((line) =>
      JSON.parse(line)
    );
    const { reward, num_tokens } = lines.at(-2);
    assert(reward > 4 && num_tokens > 0);
    for (
      const name of ["reward_std", "frac_reward_zero_std", "rewards/wanted/mean", "entropy", "clip_ratio/high_mean"]
    ) {
      assert(Number.isFinite(lines.at(-2)[name]), name);
    }
    const sampled = startCommand("sample", [
      `--out_dir=${folder}/out`,
      "--start=a?",
      "--num_samples=1",
      "--max_new_tokens=5",
    ]);
    assertMatch((await finished(sampled)).out, /a\?c+/);
  }));

Deno.test("a run that Ctrl-C or SIGTERM ended while it scored answers resumes to the same bytes, without and with an adapter", () =>
  withBase(async (folder, args) => {
    await Deno.writeTextFile( // hangs after the first checkpoint, so that the signal arrives during a call
      `${folder}/hangs.ts`,
      "import wanted from './wanted.ts';\nlet calls = 0;\n" +
        "export default (...given: Parameters<typeof wanted>) => {\n  if (++calls < 200) return wanted(...given);\n" +
        "  console.log('hangs');\n  return new Promise(() => {});\n};\n",
    );
    const hanging = args.map((arg) => arg.startsWith("--reward=") ? `--reward=${folder}/hangs.ts,name=wanted` : arg);
    const whole = ["--beta=0.05", "--num_iterations=2", "--steps_per_generation=2"], adapter = ["--lora_rank=2"];
    for (
      const [name, signal, status, more] of [
        ["grpo", "SIGINT", 130, whole],
        ["grpo", "SIGKILL", 137, whole],
        ["rloo", "SIGINT", 130, adapter],
      ] as const
    ) {
      const all = ["--max_iters=24", "--eval_interval=8", ...more, `--task=${name}`],
        out = `${folder}/${name}${signal}`;
      const path = `${folder}/${name}`, there = await Deno.stat(path).then(() => true, () => false);
      if (!there) assertEquals((await finetune(...args, ...all, `--out_dir=${path}`)).err, "");
      const child = start(...hanging, ...all, `--out_dir=${out}`);
      await readUntil(child, /hangs/, "stderr"); // what a reward function logs
      child.kill(signal);
      const { code, out: printed } = await finished(child);
      assertEquals(code, status);
      assertStringIncludes(printed, "saved");
      const resumed = await finetune("--init_from=resume", `--out_dir=${out}`, `--reward=${folder}/wanted.ts`);
      assertEquals([resumed.code, resumed.err], [0, ""]);
      const files = more === adapter ? (path: string) => metrics(path) : lastFiles;
      assertEquals(await files(out), await files(path), `${name} ${signal}`);
    }
  }));

/** Metrics without times. */
const metrics = async (path: string) =>
  (await Deno.readTextFile(`${path}/metrics.jsonl`)).replace(/"(ms|tokens_per_second)":[^,]*,/g, "");

Deno.test("in a chat, answers end with the turn, and rewards get the answer without special tokens", () =>
  withBase(async (folder, args) => {
    const rows = Array.from({ length: 20 }, (_, i) => ({ prompt: [{ role: "user", content: "ab"[i % 2] }] }));
    await Deno.writeTextFile(`${folder}/chats.jsonl`, rows.map((row) => JSON.stringify(row)).join("\n"));
    await Deno.writeTextFile( // rewards an answer for ending and for being short
      `${folder}/short.ts`,
      "export default ([{ role }], completion, { ended }) => {\n" +
        "  if (role !== 'user' || /[<|]/.test(completion)) throw new Error(completion);\n" +
        "  return Number(ended) - completion.length;\n};\n",
    );
    const some = args.filter((arg) => !/fixed_length|reward=|data=/.test(arg));
    const chats = [`--data=${folder}/chats.jsonl`, `--reward=${folder}/short.ts`, "--template=nanochat"];
    const { code, out, err } = await finetune(
      "--task=rloo",
      ...some,
      ...chats,
      "--beta=0.01",
      `--out_dir=${folder}/out`,
    );
    assertEquals([code, err], [0, ""]);
    assertMatch(out, /\n {2}"[ab]" → "", reward 1\.0000\n/);
    assertMatch(out, /\nTo chat with the model:\n {2}deno task chat /);
    const { reference } = JSON.parse(await Deno.readTextFile(`${folder}/out/run.json`));
    assertEquals(reference.name, `${folder}/base`);
    const base = JSON.parse(await Deno.readTextFile(`${folder}/base/run.json`)).last;
    const weights = `${folder}/base/${base}/model.safetensors`, bytes = await Deno.readFile(weights);
    bytes[bytes.length - 7] ^= 1;
    await Deno.writeFile(weights, bytes);
    const changed = await finetune("--init_from=resume", `--out_dir=${folder}/out`, "--max_iters=50");
    assertMatch(
      changed.err,
      /out measures KL to .*base, which has changed: the run began with other weights/,
    );
  }));

Deno.test("data and flags that a policy cannot learn from are refused, and a run whose reward fails is saved", () =>
  withBase(async (folder, args) => {
    const out = `--out_dir=${folder}/out`, grpo = (...more: string[]) => finetune("--task=grpo", ...args, out, ...more);
    const refusals: [string[], string][] = [
      [
        ["--fixed_length=False"],
        "no token that ends a text, so the policy could not end its answers; with --fixed_length=True",
      ],
      [
        ["--max_completion_length=11"],
        "the prompt has 6 tokens, which leaves room for 10 of --max_completion_length=11",
      ],
      [["--reward="], "--reward has no value"],
      [[`--reward=${folder}/none.ts`], "none.ts"],
      [[`--reward=${folder}/wanted.ts`], "Two rewards are called wanted"], // the flag can be repeated
      [["--reward=wieght=2"], "wieght is not known; expected name or weight"],
      [["--num_generations=3"], "expected a divisor of batch_size · steps_per_generation, 16 completions"],
      [
        ["--steps_per_generation=3", "--gradient_accumulation_steps=2"],
        "expected a multiple of gradient_accumulation_steps, 2",
      ],
      [["--dropout=0.1"], "--task=grpo trains without dropout; leave the flag out"],
      [["--max_length=8"], "--task=grpo does not cut prompts"],
      [
        ["--lora_rank=2", "--beta=0.1", `--ref_model=${folder}/base`],
        "the reference of an adapter is the model without it",
      ],
      [
        ["--beta=0.1", `--ref_model=${folder}/other`],
        `other has another tokenizer than the policy: token 3 is "b", expected "a"`,
      ],
    ];
    await makeRun(`${folder}/other`, LETTERS.replace("a", "z"));
    for (const [more, message] of refusals) {
      const { code, err } = await grpo(...more);
      assertStringIncludes(err, message);
      assert(code !== 0);
    }
    await Deno.writeTextFile(
      `${folder}/fails.ts`,
      "let calls = 0;\nexport default () => {\n  if (++calls > 400) throw new Error('out of ink');\n  return Math.sin(calls);\n};\n",
    );
    const failed = await grpo(`--reward=${folder}/fails.ts`);
    assertEquals(failed.code, 1);
    assertStringIncludes(failed.err, "out of ink");
    const { last } = JSON.parse(await Deno.readTextFile(`${folder}/out/run.json`));
    assertMatch(last, /^checkpoint-0000\d\d$/);
    const ran = await grpo("--beta=0.001", "--max_kl=0.5", "--learning_rate=0.2", `--out_dir=${folder}/away`);
    assertMatch(
      ran.err,
      /^error: The policy is too far from its reference: KL is \d\S* nats per text, expected at most 0\.5; a larger weight of KL, .*\n/,
    );
  }));
