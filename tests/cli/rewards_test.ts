/** Rewards on the command line: reward models from pairs and rankings, and policies tuned with models and functions. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { inFolder, runCommand as run } from "../testing.ts";

const SIZES = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--block_size=16", "--threads=1"];

function prepared(folder: string) {
  const place = (name: string) => `${folder}/${name}`;
  const write = (name: string, text: string) => Deno.writeTextFile(place(name), text);
  const writeRows = (name: string, rows: readonly object[]) =>
    write(name, rows.map((row) => JSON.stringify(row)).join("\n"));
  const good = async (...args: Parameters<typeof run>) => {
    const { code, out, err } = await run(...args);
    assertEquals(code, 0, err);
    return out;
  };
  const bad = async (message: string, ...args: Parameters<typeof run>) => {
    const { code, err } = await run(...args);
    assertEquals([code === 0, err.includes(message)], [false, true], `${err}\nexpected: ${message}`);
    return err;
  };
  const base = async (name: string, text: string) => {
    await write(`${name}.txt`, text.repeat(40));
    const files = [`--input=${place(`${name}.txt`)}`, `--out_dir=${place(name)}`];
    await good("train", ...SIZES, "--batch_size=4", "--eval_iters=1", "--max_iters=3", ...files);
    return place(name);
  };
  const last = async (run: string) =>
    `${place(run)}/${JSON.parse(await Deno.readTextFile(place(`${run}/run.json`))).last}`;
  const words = ["ab", "ba", "bb", "cab", "cc", "abba", "acca", "c"], count = (text: string) => text.split("a").length;
  const pairs = words.flatMap((one) => words.filter((other) => count(one) > count(other)).map((other) => [one, other]))
    .map(([chosen, rejected]) => ({ prompt: "c: ", chosen, rejected }));
  return { place, write, writeRows, good, bad, base, last, pairs };
}
const TUNE = ["--eval_interval=4", "--log_interval=1", "--batch_size=4", "--threads=1", "--lr_scheduler_type=constant"];

Deno.test("reward models from pairs and rankings resume to the same bytes, are converted, and begin other runs", () =>
  inFolder(async (folder) => {
    const { place, writeRows, good, base, last, pairs } = prepared(folder), begin = await base("base", "abc: ");
    await writeRows("pairs.jsonl", [...pairs, { prompt: "c: ", chosen: "a".repeat(14), rejected: "c", margin: 2 }]);
    await writeRows(
      "ranks.jsonl",
      ["ab: ", "c: ", "b: "].map((prompt) => ({ prompt, completions: ["aaa", "aba", "bb"] })),
    );
    const ways = {
      pairs: ["pairs", ["--learning_rate=0.01"], "model"],
      ranks: ["ranks", ["--learning_rate=0.01", "--center_rewards_coefficient=0.01"], "model"],
      adapter: ["pairs", ["--lora_rank=2"], "adapter_model"],
    } as const;
    for (const [name, [file, flags, weights]] of Object.entries(ways)) {
      const tune = (out: string, max: number, init = begin) =>
        good(
          ...["finetune", "--task=reward", `--data=${place(`${file}.jsonl`)}`, `--init_from=${init}`, ...TUNE] as const,
          ...[`--out_dir=${place(out)}`, `--max_iters=${max}`, ...flags],
        );
      const said = await tune(name, 8);
      assertStringIncludes(said, ", val accuracy ");
      assertStringIncludes(said, ", val calibration_error ");
      assertStringIncludes(said, "iter 7: loss ");
      if (file === "pairs") {
        assertStringIncludes(said, `text of more than 16 tokens: 1 of ${pairs.length + 1}, skipped`);
      } else assertStringIncludes(said, "2 rankings of at most 3 answers to train on, 1 to evaluate on");
      await tune(`${name}-half`, 3);
      await good(
        "finetune",
        "--init_from=resume",
        `--out_dir=${place(`${name}-half`)}`,
        "--max_iters=8",
        "--threads=1",
      );
      for (const tensors of [weights, ...name === "adapter" ? [] : ["task"], "optimizer"]) {
        const bytes = async (run: string) => await Deno.readFile(`${await last(run)}/${tensors}.safetensors`);
        assertEquals(await bytes(`${name}-half`), await bytes(name), `${name}: ${tensors}`);
      }
    }
    const lines = (await Deno.readTextFile(place("pairs/metrics.jsonl"))).trim().split("\n").map((line) =>
      JSON.parse(line)
    );
    for (const name of ["accuracy", "margin", "min_reward", "mean_reward", "max_reward"]) {
      assert(Number.isFinite(lines.find(({ loss }) => loss)[name]), name);
      assert(Number.isFinite(lines.at(-1)[`val_${name}`]), name);
    }
    assert(lines.at(-1).val_accuracy > 0.7);

    // The Hugging Face folder has the same model. Another run begins with it and its head.
    await good("convert", place("pairs"), place("hf"), "--checkpoint=last");
    assertEquals(JSON.parse(await Deno.readTextFile(place("hf/config.json"))).architectures, [
      "GPT2ForSequenceClassification",
    ]);
    const again = await good(
      ...[
        "finetune",
        "--task=reward",
        `--data=${place("pairs.jsonl")}`,
        `--init_from=${place("hf")}`,
        ...TUNE,
      ] as const,
      ...["--eval_only=True", "--learning_rate=0.01"],
    );
    assertStringIncludes(again, `val loss ${lines.at(-1).val_loss.toFixed(4)}, `);

    const judged = await good("eval", `--data=${place("pairs.jsonl")}`, `--init_from=${place("hf")}`, "--threads=1");
    assertStringIncludes(
      judged,
      "rows with a text of more than the model's 16 tokens: 1, left out\nloss               ",
    );
    assertStringIncludes(judged, `\nrows               ${pairs.length}\n`);
    const ranked = await good("eval", `--data=${place("ranks.jsonl")}`, `--out_dir=${place("ranks")}`, "--threads=1");
    for (const name of ["accuracy", "margin", "mean_reward", "calibration_error"]) {
      assertStringIncludes(ranked, `\n${name} `);
    }

    const shown = await good("data", place("ranks.jsonl"), "--task=reward", `--init_from=${begin}`, "--num_rows=1");
    assertStringIncludes(shown, "a ranking of 3 answers, best first\n1: 7 tokens\n  a|b|:| |a|a|a\n");
  }));

Deno.test("rows and flags that do not apply to a reward model are refused, with the row's line or the flag's name", () =>
  inFolder(async (folder) => {
    const { place, writeRows, bad, base, pairs } = prepared(folder), begin = await base("base", "abc: ");
    const tune = [
      "finetune",
      "--task=reward",
      `--data=${place("rows.jsonl")}`,
      `--init_from=${begin}`,
      ...TUNE,
    ] as const;
    const rows = async (row: object, message: string) => {
      await writeRows("rows.jsonl", "chosen" in row ? [pairs[0], row] : [row]); // all rows of a file are of the same kind
      await bad(message, ...tune);
    };
    await rows({ prompt: "c", chosen: "a", rejected: "a" }, "line 2: chosen and rejected are equal");
    await rows({ prompt: "c", chosen: "", rejected: "a" }, "line 2: chosen has no answer to the prompt: it is empty");
    await rows({ prompt: "c", completions: ["a", "b", "a"] }, "line 1: completions[0] and [2] have the same tokens");
    await rows({ prompt: "c", completions: ["a", ""] }, "line 1: completions[1] is empty");
    await rows(
      { prompt: "c", chosen: "a".repeat(16), rejected: "b" },
      "one usable row, and none to evaluate on",
    );
    await writeRows("rows.jsonl", [{ prompt: "c", chosen: "a".repeat(16), rejected: "b" }]);
    await bad("all 1 rows have a text of more than 16 tokens", ...tune);
    for (
      const [flag, message] of [
        ["--dropout=0.1", "--task=reward trains without dropout"],
        ["--truncation=keep_end", "--task=reward skips rows with a longer text"],
        ["--label_smoothing=0.1", "this is only for --task=dpo"],
        ["--center_rewards_coefficient=-1", "expected"],
      ]
    ) await bad(message, ...tune, flag);
  }));

Deno.test("a policy is tuned with weighted rewards, models and functions; errors name the reward, and the run is saved", () =>
  inFolder(async (folder) => {
    const { place, write, writeRows, good, bad, base, pairs } = prepared(folder),
      begin = await base("base", "abc: ");
    await writeRows("pairs.jsonl", pairs);
    await writeRows("prompts.jsonl", ["ab", "c", "b", "a"].map((prompt) => ({ prompt, longest: prompt.length })));
    const reward = ["--task=reward", `--data=${place("pairs.jsonl")}`, ...TUNE, "--max_iters=2"];
    await good("finetune", ...reward, `--init_from=${begin}`, `--out_dir=${place("reward")}`);
    const tune = [
      "finetune",
      "--task=grpo",
      `--data=${place("prompts.jsonl")}`,
      `--init_from=${begin}`,
      ...TUNE,
    ] as const;
    const size = [
      "--num_generations=2",
      "--max_completion_length=4",
      "--fixed_length=True",
      "--max_iters=3",
      "--eval_interval=9",
    ];
    const grpo = (name: string, ...rewards: string[]) =>
      [...tune, ...size, `--out_dir=${place(name)}`, `--reward=${rewards.map(place).join(",")}`] as const;

    await write(
      "long.ts",
      `export default (_: string, text: string, { more }: any) => text.split("a").length - more.longest;`,
    );
    const said = await good(...grpo("tuned", "reward,name=help", "long.ts,weight=0.5"));
    assertStringIncludes(said, "rewards: help + 0.5 · long\n");
    const [line] = (await Deno.readTextFile(place("tuned/metrics.jsonl"))).split("\n").filter((line) =>
      line.includes('"loss"')
    )
      .map((line) => JSON.parse(line));
    for (const name of ["reward", "rewards/help/mean", "rewards/long/mean"]) assert(Number.isFinite(line[name]), name);

    const cases = {
      throw: ["throw new Error('no such word')", "has failed: no such word"],
      nan: ["return NaN", "gives NaN, expected a finite number"],
      read: ["return Deno.readTextFileSync('/etc/hostname').length", "has no permission for: Requires read access"],
      write: ["Deno.writeTextFileSync('x', '')", "has no permission for: Requires write access"],
      hang: ["for (;;);", "takes more than 3 seconds for one completion"],
    };
    for (const [name, [does, message]] of Object.entries(cases)) {
      await write(
        `${name}.ts`,
        `let calls = 0;\nexport default () => { if (++calls > 10) { ${does} } return calls; };`,
      );
      const err = await bad(message, ...grpo(name, `${name}.ts`), `--reward_timeout=${name === "hang" ? 3 : 30}`);
      assertStringIncludes(err, `The reward function ${place(`${name}.ts`)} `);
      assertStringIncludes(err, `, after the prompt "`);
      assertStringIncludes(err, "\nTraining has stopped at iteration 1, and checkpoint-000001 is still there");
      await write(`${name}.ts`, `export default () => 1;`);
      await good("finetune", "--init_from=resume", `--out_dir=${place(name)}`, "--threads=1");
    }

    const other = await base("other", "xyz: ");
    await bad("the model has no head for rewards", ...grpo("a", "base"));
    await bad("cannot be used as a reward function: Module not found", ...grpo("c", "nowhere.ts"));
    await writeRows("prompts.jsonl", [{ prompt: "x" }, { prompt: "yz" }]);
    const [command, ...flags] = grpo("b", "reward").map((flag) => flag.replace(begin, other));
    await bad("another tokenizer than the policy: token", command, ...flags);
  }));
