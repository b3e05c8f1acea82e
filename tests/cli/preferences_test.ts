/**
 * DPO on the command line: runs with each kind of reference, stopped and resumed, used by sample and chat; and bad
 * rows.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { inFolder, runCommand as run } from "../testing.ts";

const QUESTIONS = ["red", "blue", "green", "black"];

Deno.test("DPO: runs with each kind of reference resume to the same bytes, and sample and chat use the result", () =>
  inFolder(async (folder) => {
    const place = (name: string) => `${folder}/${name}`, threads = "--threads=1";
    const good = async (...args: Parameters<typeof run>) => {
      const { code, out, err } = await run(...args);
      assertEquals(code, 0, err);
      return out;
    };
    const lines = QUESTIONS.flatMap((color) => ["yes", "no"].map((said) => `is it ${color}? ${said}\n`));
    await Deno.writeTextFile(place("text.txt"), lines.join("").repeat(20));
    const pairs = QUESTIONS.flatMap((color) =>
      Array(3).fill({ prompt: `is it ${color}? `, chosen: "yes\n", rejected: "no\n" })
    );
    await Deno.writeTextFile(place("pairs.jsonl"), pairs.map((pair) => JSON.stringify(pair)).join("\n"));
    const base = place("base");
    await good(
      ...["train", "--n_layer=1", "--n_head=2", "--n_embd=32", "--block_size=32", "--batch_size=4"] as const,
      ...["--learning_rate=0.01", "--eval_iters=1", "--eval_interval=60", "--max_iters=60", threads],
      ...[`--input=${place("text.txt")}`, `--out_dir=${base}`],
    );
    const shown = await good("data", place("pairs.jsonl"), "--task=dpo", `--init_from=${base}`, "--num_rows=1");
    assertStringIncludes(shown, "chosen: 15 tokens, 4 learned\n");
    assertStringIncludes(shown, "|?| |[y][e][s][\\n");

    const rates = ["--learning_rate=0.01", "--lr_scheduler_type=constant", "--eval_interval=2", "--batch_size=3"];
    const tune = (out: string, ...more: string[]) =>
      good(
        "finetune",
        ...["--task=dpo", `--data=${place("pairs.jsonl")}`, `--init_from=${base}`, `--out_dir=${place(out)}`, threads],
        ...rates,
        ...more,
      );
    const last = async (run: string) =>
      `${place(run)}/${JSON.parse(await Deno.readTextFile(place(`${run}/run.json`))).last}`;
    const ways = {
      beside: [[], base],
      stored: [["--precompute_ref_log_probs=True"], `${base}, run once`],
      off: [["--lora_rank=2"], "the model without the adapter"],
      free: [["--reference_free=True", "--beta=0.5"], "none"],
    } as const;
    for (const [name, [flags, reference]] of Object.entries(ways)) {
      const said = await tune(name, "--max_iters=6", ...flags);
      assertStringIncludes(said, `reference: ${reference}\n`);
      assertStringIncludes(said, ", rewards/accuracies ");
      if (name !== "free") assertStringIncludes(said, "step 0: train loss 0.6931, val loss 0.6931, ");
      await tune(`${name}-half`, "--max_iters=3", ...flags);
      await good("finetune", "--init_from=resume", `--out_dir=${place(`${name}-half`)}`, "--max_iters=6", threads);
      const [whole, half] = [await last(name), await last(`${name}-half`)];
      for (const file of [name === "off" ? "adapter_model" : "model", "optimizer"]) {
        const bytes = (folder: string) => Deno.readFile(`${folder}/${file}.safetensors`);
        assertEquals(await bytes(half), await bytes(whole), `${name}: ${file}`);
      }
    }
    const metrics = (await Deno.readTextFile(place("beside/metrics.jsonl"))).trim().split("\n").map((line) =>
      JSON.parse(line)
    );
    const names = [
      "rewards/chosen",
      "rewards/margins",
      "logps/rejected",
      "logits/chosen",
      "entropy",
      "mean_token_accuracy",
    ];
    for (const name of names) assert(Number.isFinite(metrics.find(({ loss }) => loss)[name]), name);
    assert(metrics.at(-1)["val_rewards/margins"] > 0.2);

    const start = ["--start=is it red? ", "--num_samples=1", "--max_new_tokens=4", "--temperature=0.01", threads];
    assertStringIncludes(
      await good("sample", `--out_dir=${place("beside")}`, "--checkpoint=last", ...start),
      "is it red? yes\n",
    );

    // A run cannot be resumed if its reference has changed.
    const other = place("other");
    await good(
      ...["train", "--n_layer=1", "--n_head=2", "--n_embd=32", "--block_size=32", "--batch_size=4"] as const,
      ...["--seed=2", "--eval_iters=1", "--max_iters=1", threads, `--input=${place("text.txt")}`, `--out_dir=${other}`],
    );
    await tune("against", "--max_iters=1", `--ref_model=${other}`);
    await Deno.remove(other, { recursive: true });
    const gone = await run("finetune", "--init_from=resume", `--out_dir=${place("against")}`, "--max_iters=3", threads);
    assertEquals(gone.code, 1);
    assertStringIncludes(gone.err, other);

    const chats = QUESTIONS.map((content) => ({
      chosen: [{ role: "user", content }, { role: "assistant", content: "yes" }],
      rejected: [{ role: "user", content }, { role: "assistant", content: "no" }],
    }));
    await Deno.writeTextFile(place("chats.json"), JSON.stringify(chats));
    await tune("chat", "--max_iters=2", "--template=plain", `--data=${place("chats.json")}`, "--lora_rank=2");
    const chat = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "src/cli/chat.ts", `--out_dir=${place("chat")}`, "--max_new_tokens=3", threads],
      ...{ env: { DENO_V8_FLAGS: "--no-liftoff", NO_COLOR: "1" }, stdin: "piped", stdout: "piped", stderr: "piped" },
    }).spawn();
    const writer = chat.stdin.getWriter();
    await writer.write(new TextEncoder().encode("red\n"));
    await writer.close();
    const { code, stdout, stderr } = await chat.output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    assert(stdout.length > 1);
  }));

Deno.test("DPO: pairs with equal answers are errors, and pairs that a cut makes equal are skipped", () =>
  inFolder(async (folder) => {
    const path = `${folder}/a.jsonl`, base = `${folder}/base`, text = `${folder}/text.txt`;
    await Deno.writeTextFile(text, "abcdefgh ".repeat(60));
    const sizes = ["--n_layer=1", "--n_head=1", "--n_embd=8", "--block_size=16", "--batch_size=2", "--threads=1"];
    await run("train", ...sizes, "--eval_iters=1", "--max_iters=1", `--input=${text}`, `--out_dir=${base}`);
    const tune = async (rows: object[], ...more: string[]) => {
      await Deno.writeTextFile(path, rows.map((row) => JSON.stringify(row)).join("\n"));
      const options = ["--max_iters=1", "--threads=1", `--out_dir=${folder}/out`, ...more];
      return await run("finetune", "--task=dpo", `--data=${path}`, `--init_from=${base}`, ...options);
    };
    const good = { prompt: "ab", chosen: "c", rejected: "d" };
    const bad: [object, string][] = [
      [{ ...good, rejected: "c" }, "chosen and rejected are equal; expected two answers, the first of them preferred"],
      [{ ...good, chosen: "" }, "chosen has no answer to the prompt: it is empty"],
      [{ prompt: "ab", chosen: "c" }, "rejected is missing; expected a text, or a list of messages"],
    ];
    for (const [row, message] of bad) {
      const { code, err } = await tune([good, row]);
      assertEquals([code, err.trim()], [1, `error: ${path}, line 2: ${message}`]);
    }
    const long = { prompt: "abcdefghabcdefgha", chosen: "b", rejected: "c" }; // 17 tokens
    const late = { prompt: "abcdefghabcdef", chosen: "aab", rejected: "aac" }; // answers that differ in the seventeenth token
    const { code, out } = await tune([good, long, late, good]);
    assertEquals(code, 0);
    assertStringIncludes(out, "rows longer than 16 tokens: 2 of 4, cut at the end\n");
    assertStringIncludes(out, "pairs whose answers do not differ within 16 tokens: 2 of 4, skipped\n");
    assertStringIncludes(out, "The tokenizer has no token that ends a text");
    const none = await tune([long, long]);
    assertEquals(none.code, 1);
    assertStringIncludes(none.err, "has only pairs whose answers do not differ within 16 tokens");
  }));
