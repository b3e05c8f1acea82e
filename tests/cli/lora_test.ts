/** LoRA adapters on the command line: training, other commands with the result, and errors. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { inFolder, runCommand as run } from "../testing.ts";

Deno.test("LoRA: a run is trained, stopped, resumed, sampled, evaluated, and converted with its adapter merged", () =>
  inFolder(async (folder) => {
    const place = (name: string) => `${folder}/${name}`, threads = "--threads=1";
    const rows = ["red", "blue", "green"].flatMap((color) => {
      const row = JSON.stringify({ prompt: `color ${color}? `, completion: `${[...color].reverse().join("")}\n` });
      return Array(10).fill(row);
    });
    await Deno.writeTextFile(place("rows.jsonl"), `${rows.join("\n")}\n`);
    await Deno.writeTextFile(place("text.txt"), "color red? der\ncolor blue? eulb\ncolor green? neerg\n".repeat(20));
    const good = async (...args: Parameters<typeof run>) => {
      const { code, out, err } = await run(...args);
      assertEquals(code, 0, err);
      return out;
    };
    const sizes = ["--n_layer=1", "--n_head=2", "--n_embd=32", "--block_size=32", "--batch_size=4"];
    const brief = ["--eval_iters=1", "--eval_interval=2", "--max_iters=2"], base = place("base");
    await good("train", ...sizes, ...brief, threads, `--input=${place("text.txt")}`, `--out_dir=${base}`);

    const lora = [
      "--lora_rank=2",
      "--lora_dropout=0.1",
      "--learning_rate=0.05",
      "--lr_scheduler_type=constant",
      "--weights=q8_0",
      "--eval_interval=4",
    ];
    const tune = (out: string, ...more: string[]) =>
      good(
        "finetune",
        `--data=${place("rows.jsonl")}`,
        `--init_from=${base}`,
        `--out_dir=${place(out)}`,
        threads,
        ...lora,
        ...more,
      );
    assertStringIncludes(
      await tune("whole", "--max_iters=9"),
      "adapter: rank 2 on c_attn; 256 parameters are trained, 1.8 % of all",
    );
    await tune("half", "--max_iters=4");
    const resume = ["--init_from=resume", `--out_dir=${place("half")}`, "--max_iters=9", "--weights=q8_0"];
    await good("finetune", ...resume, threads);
    const last = async (run: string) => `${run}/${JSON.parse(await Deno.readTextFile(`${run}/run.json`)).last}`;
    const [whole, half] = [await last(place("whole")), await last(place("half"))];
    for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
      assertEquals(await Deno.readFile(`${half}/${file}`), await Deno.readFile(`${whole}/${file}`), file);
    }
    const description = JSON.parse(await Deno.readTextFile(place("whole/run.json")));
    assertEquals(description.base.name, base);
    assertStringIncludes(
      await good("finetune", "--init_from=resume", `--out_dir=${place("whole")}`, threads),
      "max_iters=9 is reached: a higher --max_iters continues the training",
    );
    const data = `--data=${place("rows.jsonl")}`;
    const onto = await run("finetune", data, `--init_from=${base}`, `--out_dir=${base}/`, "--lora_rank=2", threads);
    assertEquals([onto.code, onto.err], [
      2,
      `error: --out_dir=${base}/: the run needs the model in this folder when it is resumed or used; name another folder\n`,
    ]);

    await good("convert", place("whole"), place("hf"));
    await good("convert", base, place("adapted.gguf"), `--adapter=${whole}`);
    const sample = (...from: string[]) =>
      good(
        "sample",
        ...from,
        threads,
        "--num_samples=1",
        "--max_new_tokens=12",
        "--start=color ",
        "--temperature=0.01",
      );
    const text = await sample(`--out_dir=${place("whole")}`, "--checkpoint=last");
    assert(text !== await sample(`--out_dir=${base}`));
    assertEquals(await sample(`--init_from=${base}`, `--adapter=${whole}`), text);
    assertEquals(await sample(`--init_from=${place("adapted.gguf")}`), text);
    const loss = async (...from: string[]) => {
      const [, loss] = (await good("eval", ...from, threads, `--input=${place("text.txt")}`)).match(/loss +(\S+)/)!;
      return Number(loss);
    };
    const tuned = await loss(`--init_from=${base}`, `--adapter=${whole}`);
    assert(Math.abs(tuned - await loss(`--init_from=${place("adapted.gguf")}`)) < 2e-4);
    assert(Math.abs(tuned - await loss(`--out_dir=${base}`)) > 1e-2);

    const bad = async (message: string, ...args: Parameters<typeof run>) => {
      const { code, err } = await run(...args);
      assert(code === 1 || code === 2, err);
      assertStringIncludes(err, message);
    };
    await bad(
      "rounded weights cannot be trained, but an adapter on them can: --lora_rank=8",
      "finetune",
      "--data=x",
      `--init_from=${base}`,
      "--weights=bf16",
    );
    await bad(
      "has lora_rank=2, which cannot be changed",
      "finetune",
      "--init_from=resume",
      `--out_dir=${place("half")}`,
      "--lora_rank=4",
    );
    const adapterOf = (folder: string) => ["sample", `--out_dir=${base}`, `--adapter=${folder}`] as const;
    await bad(`${place("hf")} is not an adapter: it has no adapter_config.json`, ...adapterOf(place("hf")));
    await bad(`it is a run, with adapters in ${place("half")}/checkpoint-`, ...adapterOf(place("half")));
    await bad(`${whole} is an adapter, not a model`, "convert", whole, place("none"));
    await Deno.remove(base, { recursive: true });
    await bad("has an adapter for", "sample", `--out_dir=${place("whole")}`, threads);
  }));
