/** PPO on the command line: value functions, resuming, the result, and errors. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { inFolder, runCommand as run } from "../testing.ts";

const REWARD = `export default (_: string, completion: string) => completion.split("a").length - 1;\n`;
const ARGS = [
  ...["--task=ppo", "--threads=1", "--max_completion_length=6", "--fixed_length=True", "--batch_size=4"],
  ...["--num_mini_batches=2", "--num_ppo_epochs=2", "--learning_rate=0.003", "--lr_scheduler_type=constant"],
  ...["--eval_interval=5", "--log_interval=1"],
];

async function prepared(folder: string) {
  const place = (name: string) => `${folder}/${name}`;
  const good = async (...args: Parameters<typeof run>) => {
    const { code, out, err } = await run(...args);
    assertEquals(code, 0, err);
    return out;
  };
  const text = Array.from({ length: 300 }, (_, i) => "abcdef \n"[(i * i + i % 7) % 8]).join("");
  await Deno.writeTextFile(place("text.txt"), text);
  await Deno.writeTextFile(place("other.txt"), text.replaceAll("a", "z"));
  await Deno.writeTextFile(place("reward.ts"), REWARD);
  const prompts = ["ab", "c", "def", "fa", "bb", "ed", "c c", "a", "fe", "cab"];
  await Deno.writeTextFile(place("prompts.jsonl"), prompts.map((prompt) => JSON.stringify({ prompt })).join("\n"));
  for (const name of ["text", "other"]) {
    await good(
      ...["train", "--n_layer=1", "--n_head=2", "--n_embd=16", "--block_size=16", "--batch_size=4"] as const,
      ...["--eval_iters=1", "--eval_interval=5", "--max_iters=5", "--threads=1"],
      ...[`--input=${place(`${name}.txt`)}`, `--out_dir=${place(name)}`],
    );
  }
  const inputs = [`--data=${place("prompts.jsonl")}`, `--reward=${place("reward.ts")}`];
  return { place, good, inputs };
}

Deno.test("PPO: runs with each kind of value function resume to the same bytes, and sample uses the result", () =>
  inFolder(async (folder) => {
    const { place, good, inputs } = await prepared(folder);
    const last = async (run: string) =>
      `${place(run)}/${JSON.parse(await Deno.readTextFile(place(`${run}/run.json`))).last}`;
    const ways = {
      head: [[], "a head on the policy", "model"],
      beside: [
        [`--value_model=${place("text")}`, "--score_at=behind", "--kl_estimator=k3"],
        "a second model",
        "model",
      ],
      adapter: [
        ["--lora_rank=2", `--ptx_data=${place("text.txt")}`, "--ptx_batch_size=2", "--kl_target=0.1"],
        "a head on the policy",
        "adapter_model",
      ],
    } as const;
    for (const [name, [flags, value, weights]] of Object.entries(ways)) {
      const tune = (out: string, max: number, init: string) =>
        good(
          "finetune",
          ...ARGS,
          ...inputs,
          ...flags,
          `--init_from=${init}`,
          `--out_dir=${place(out)}`,
          `--max_iters=${max}`,
        );
      const said = await tune(name, 10, place("text"));
      assertStringIncludes(said, `value function: ${value}`);
      assertStringIncludes(said, "iter 0: loss ");
      assertStringIncludes(said, ", objective/kl 0.0000, ");
      await tune(`${name}-half`, 7, place("text")); // between two updates of an iteration
      await tune(`${name}-half`, 10, "resume");
      const [whole, half] = [await last(name), await last(`${name}-half`)];
      for (const file of [`${weights}.safetensors`, "optimizer.safetensors", "task.safetensors", "state.json"]) {
        const bytes = (folder: string) => Deno.readFile(`${folder}/${file}`);
        assertEquals(await bytes(half), await bytes(whole), `${name}: ${file}`);
      }
      const text = await good(
        "sample",
        `--out_dir=${place(name)}`,
        "--num_samples=1",
        "--max_new_tokens=4",
        "--threads=1",
      );
      assert(text.length >= 4, text);
    }
    const lines = (await Deno.readTextFile(place("adapter/metrics.jsonl"))).trim().split("\n");
    const [step, evaluation] = ["grad_norm", "val_loss"].map((key) =>
      JSON.parse(lines.findLast((line) => line.includes(key))!)
    );
    for (const name of ["objective/rlhf_reward", "policy/approxkl_avg", "loss/value_avg", "loss/ptx_avg", "kl_coef"]) {
      assert(Number.isFinite(step[name]), name);
    }
    assertEquals(evaluation.val_loss, -evaluation["val_objective/scores"]);
  }));

Deno.test("PPO: invalid flags and data are refused in one line", () =>
  inFolder(async (folder) => {
    const { place, inputs } = await prepared(folder), short = place("short.txt");
    await Deno.writeTextFile(short, "abc");
    const cases: [string[], string][] = [
      [
        [`--value_model=${place("other")}`],
        `--value_model=${place("other")} has another tokenizer than the policy: token `,
      ],
      [[`--ptx_data=${short}`], "3 tokens; expected more than the block size, 16"],
      [["--num_mini_batches=0"], "--num_mini_batches=0: expected an integer, at least 1"],
      // deno-lint-ignore plain-words/words -- a value of TRL's flag
      [["--score_at=middle"], "--score_at=middle: expected end or behind"],
      [["--num_generations=4"], "--num_generations=4: this is only for --task=grpo or rloo"],
      [["--fixed_length=False"], "The tokenizer has no token that ends a text"],
      [["--max_completion_length=15"], "the prompt has 3 tokens, which leaves room for 13 of"],
    ];
    for (const [flags, message] of cases) {
      const out = place("out"),
        { code, err } = await run(
          "finetune",
          ...ARGS,
          ...inputs,
          `--init_from=${place("text")}`,
          `--out_dir=${out}`,
          ...flags,
        );
      assertEquals([code, err.includes(message)], [code || 1, true], err);
      assert(!err.includes("    at "), err);
    }
  }));
