import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { describeError, exitStatus, parse, taskCommand } from "../../src/cli/command.ts";
import { editDistance } from "../../src/errors.ts";
import { show } from "../../src/cli/flags.ts";
import { bar, duration, Progress, rate } from "../../src/cli/progress.ts";
import { generationOptions, sampleDeclaration, sampleFlags } from "../../src/cli/sample_flags.ts";
import { TrainReport } from "../../src/cli/train_report.ts";
import { resumeCommand, resumedValues, trainDeclaration, trainFlags } from "../../src/cli/train_flags.ts";
import { v8Flags } from "../../src/cli/v8_flags.ts";
import { CheckpointError, ConfigError, DataError } from "../../src/errors.ts";
import { whyNarrow } from "../../src/cli/v8_flags.ts";

const parseTrain = (args: string[]) => parse(trainDeclaration, args);
const parseSample = (args: string[]) => parse(sampleDeclaration, args);
const words = (line: string) => line.split(" ").filter(Boolean);

Deno.test("the command in nanoGPT's README for a laptop gives the same values here", async () => {
  const { values, config, given } = await parseTrain(words(
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 " +
      "--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0",
  ));
  assertEquals(values, {
    // From the flags.
    device: "cpu",
    compile: false,
    eval_iters: 20,
    log_interval: 1,
    block_size: 64,
    batch_size: 12,
    n_layer: 4,
    n_head: 4,
    n_embd: 128,
    max_iters: 2000,
    lr_decay_iters: 2000,
    dropout: 0,
    // From nanoGPT's config/train_shakespeare_char.py.
    out_dir: "out-shakespeare-char",
    eval_interval: 250,
    always_save_checkpoint: false,
    dataset: "shakespeare_char",
    gradient_accumulation_steps: 1,
    learning_rate: 1e-3,
    min_lr: 1e-4,
    beta2: 0.99,
    warmup_iters: 100,
    // From nanoGPT's train.py.
    eval_only: false,
    init_from: "scratch",
    bias: false,
    weight_decay: 0.1,
    beta1: 0.9,
    grad_clip: 1,
    decay_lr: true,
    dtype: "float32",
    seed: 1337,
    wandb_log: false,
    // Our own flags.
    input: "",
    tokenizer: "",
    special_tokens: "refuse",
    threads: 0,
    profile: false,
    native: false,
    wandb_project: "",
    wandb_run_name: "",
  });
  assertEquals([config.warmup_iters, config.n_layer, config.seed], [100, 6, undefined]);
  assertEquals([given.warmup_iters, given.n_layer, given.seed], [undefined, 4, undefined]);
});

Deno.test("without a config file, the defaults equal the values of nanoGPT's command for a laptop, except out_dir and log_interval", async () => {
  const laptop = await parseTrain(words(
    "config/train_shakespeare_char --eval_iters=20 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 " +
      "--max_iters=2000 --lr_decay_iters=2000 --dropout=0.0 --out_dir=out",
  ));
  assertEquals((await parseTrain([])).values, laptop.values);
  assertEquals((await parseTrain([])).config, {});
});

Deno.test("a config file overrides train.py's defaults, and flags override the config file", async () => {
  const config = await Deno.makeTempFile({ prefix: "50% of #1 ", suffix: ".ts" });
  await Deno.writeTextFile(config, "export default { batch_size: 3, n_layer: 5 };");
  try {
    const { values } = await parseTrain([config, "--n_layer=6", "--n_layer=7"]);
    const { batch_size, n_layer, n_embd, block_size, gradient_accumulation_steps } = values;
    assertEquals({ batch_size, n_layer, n_embd, block_size, gradient_accumulation_steps }, {
      batch_size: 3,
      n_layer: 7,
      n_embd: 768,
      block_size: 1024,
      gradient_accumulation_steps: 40,
    });
  } finally {
    await Deno.remove(config);
  }
});

Deno.test("values are written as in Python", async () => {
  const read = async (flag: string) => Object.values((await parseTrain([flag])).given)[0];
  assertEquals(await read("--bias=True"), true);
  assertEquals(await read("--bias=false"), false);
  assertEquals(await read("--learning_rate=1e-3"), 0.001);
  assertEquals(await read("--learning_rate=.5"), 0.5);
  assertEquals(await read("--learning_rate=6."), 6);
  assertEquals(await read("--weight_decay=0"), 0);
  assertEquals(await read("--max_iters=0"), 0);
  assertEquals(await read("--out_dir=a=b c"), "a=b c");
  assertEquals((await parseSample(["--start=--x\n"])).values.start, "--x\n");
});

Deno.test("new flags override the values of a resumed run, except the sizes of its model", async () => {
  const first = (await parseTrain(["--n_layer=2", "--max_iters=60", "--seed=7", "--out_dir=elsewhere"])).values;
  const resume = async (line: string) => resumedValues(await parseTrain(words(line)), first);
  assertEquals(await resume("--init_from=resume"), { ...first, init_from: "resume", out_dir: "out" });
  const longer = await resume("config/train_shakespeare_char.py --init_from=resume --max_iters=90 --n_layer=2");
  const { n_layer, block_size, max_iters, seed, batch_size, dropout } = longer;
  assertEquals({ n_layer, block_size, max_iters, seed, batch_size, dropout }, {
    n_layer: 2,
    block_size: 64,
    max_iters: 90,
    seed: 7,
    batch_size: 64,
    dropout: 0.2,
  });
  const other = await assertRejects(() => resume("--init_from=resume --n_layer=4"), CheckpointError);
  assertEquals(other.message, "--n_layer=4: the model in out has n_layer=2, which cannot be changed");
  const tokenizer = await assertRejects(() => resume("--init_from=resume --tokenizer=gpt2"), CheckpointError);
  assertEquals(tokenizer.message, "--tokenizer=gpt2: the model in out has tokenizer=, which cannot be changed");
  const bias = await assertRejects(() => resume("--init_from=resume --bias=True"), CheckpointError);
  assertEquals(bias.message, "--bias=True: the model in out has bias=False, which cannot be changed");
  const request = await parseTrain(["--init_from=resume"]);
  const damaged = assertThrows(() => resumedValues(request, { ...first, seed: "x" }), CheckpointError);
  assertEquals(damaged.message, 'out/run.json: seed = "x": expected an integer, at least 0 and at most 4294967295');
});

Deno.test("the command that resumes a run can be pasted into a shell", () => {
  assertEquals(resumeCommand([], "out"), "deno task train --init_from=resume --out_dir=out");
  assertEquals(
    resumeCommand(["--device=webgpu:dawn"], "a"),
    "deno task train:dawn --device=webgpu:dawn --init_from=resume --out_dir=a",
  );
  assertEquals(
    resumeCommand(["config/x.py", "--out_dir=a", "--init_from=scratch", "--input=it's here.txt"], "a"),
    "deno task train config/x.py '--input=it'\\''s here.txt' --init_from=resume --out_dir=a",
  );
  const { deno } = Deno.version;
  const usual = { deno: "/usr/bin/deno" }, npx = { deno: "/home/a/.npm/_npx/7a40/deno" };
  assertEquals(taskCommand("sample", ["--out_dir=a b"], usual), "deno task sample '--out_dir=a b'");
  assertEquals(taskCommand("sample", [], npx), `npx -y deno@${deno} task sample`);
  const registry = { ...usual, module: "https://registry/command.ts" };
  const run = "deno run --allow-read --allow-write --allow-net --allow-env";
  assertEquals(
    taskCommand("sample", ["--out_dir=a b"], registry),
    `${run} jsr:@nanogpt/ts/cli/sample '--out_dir=a b'`,
  );
  assertEquals(
    taskCommand("train:dawn", ["--device=webgpu:dawn", "--seed=1"], registry),
    `${run} --allow-ffi jsr:@nanogpt/ts/cli/train --device=webgpu:dawn --seed=1`,
  );
  assertEquals(
    taskCommand("finetune:native", ["--seed=1"], registry),
    `${run} --allow-run=deno --allow-ffi jsr:@nanogpt/ts/cli/finetune --native --seed=1`,
  );
  assertEquals(
    taskCommand("serve:lan", [], registry),
    `${run} --allow-sys jsr:@nanogpt/ts/cli/serve --host=0.0.0.0`,
  );
});

Deno.test("sample without flags has the defaults of nanoGPT's sample.py", async () => {
  const { values } = await parseSample(["--out_dir=out-shakespeare-char", "--device=cpu"]);
  const { out_dir, init_from, start, num_samples, max_new_tokens, temperature, top_k, seed } = values;
  assertEquals(
    { out_dir, init_from, start, num_samples, max_new_tokens, temperature, top_k, seed },
    {
      out_dir: "out-shakespeare-char",
      init_from: "resume",
      start: "\n",
      num_samples: 10,
      max_new_tokens: 500,
      temperature: 0.8,
      top_k: 200,
      seed: 1337,
    },
  );
});

const badTraining = {
  "--learning_rat=1": "Unknown flag --learning_rat: the nearest flag is --learning_rate, and --help lists all flags",
  "--batch-size=1": "Unknown flag --batch-size: the nearest flag is --batch_size, and --help lists all flags",
  "--N_LAYERS=1": "Unknown flag --N_LAYERS: the nearest flag is --n_layer, and --help lists all flags",
  "--toString=1": "Unknown flag --toString: --help lists all flags",
  "-seed=1": "Unknown flag -seed: the nearest flag is --seed, and --help lists all flags",
  "--no-bias": "Unknown flag --no-bias: the nearest flag is --bias, and --help lists all flags",
  "--n_head=3 --n_embd=128": "--n_embd=128 --n_head=3: the width must be a multiple of the number of heads",
  "--batch_size=0": "--batch_size=0: expected an integer, at least 1",
  "--batch_size=-3": "--batch_size=-3: expected an integer, at least 1",
  "--batch_size=1.5": "--batch_size=1.5: expected an integer, at least 1",
  "--batch_size=1_000": "--batch_size=1_000: expected an integer, at least 1",
  "--batch_size=99999999999999999999": "--batch_size=99999999999999999999: expected an integer, at least 1",
  "--seed=4294967296": "--seed=4294967296: expected an integer, at least 0 and at most 4294967295",
  "--dropout=1.5": "--dropout=1.5: expected a number, at least 0 and below 1",
  "--dropout=-0.1": "--dropout=-0.1: expected a number, at least 0 and below 1",
  "--learning_rate=abc": "--learning_rate=abc: expected a number, at least 0",
  "--learning_rate=nan": "--learning_rate=nan: expected a number, at least 0",
  "--learning_rate=inf": "--learning_rate=inf: expected a number, at least 0",
  "--learning_rate=1e999": "--learning_rate=1e999: expected a number, at least 0",
  "--beta2=1": "--beta2=1: expected a number, at least 0 and below 1",
  "--bias=yes": "--bias=yes: expected True or False",
  "--batch_size 12": "--batch_size has no value: write --batch_size=VALUE without spaces, or leave the flag out",
  "--batch_size=": "--batch_size has no value: write --batch_size=VALUE without spaces, or leave the flag out",
  "--eval_only": "--eval_only has no value: write --eval_only=True without spaces, or leave the flag out",
  "config/train_shakespeare_char.py more":
    "more: only one config file can be named, and flags are written --name=value",
  "batch_size=12": "batch_size=12: no such config file (looked for batch_size=12.ts); flags begin with --",
  "--epochs=3": "Unknown flag --epochs: --help lists all flags",
  "config/train_gpt2.py": "config/train_gpt2.py: no such config file (looked for config/train_gpt2.ts)",
  "--compile=True": "--compile=True: this program has no torch.compile; leave it False",
  "--dtype=bfloat16": "--dtype=bfloat16: everything is computed in float32",
  "--wandb_log=True": "--wandb_log=True: metrics go to metrics.jsonl in out_dir; leave it False",
  "--device=cuda": "--device=cuda: this is a device of PyTorch; use auto, cpu or webgpu",
  "--device=gpu":
    "--device=gpu: expected auto or cpu or reference or webgpu or webgpu:software or webgpu:dawn or webgpu:dawn:software",
};

const badSampling = {
  "--top_k=-1": "--top_k=-1: expected an integer, at least 0",
  "--repetition_penalty=0": "--repetition_penalty=0: expected a number, above 0",
  "--stop=": "--stop has no value: write --stop=VALUE without spaces, or leave the flag out",
  "--temperature=-1": "--temperature=-1: expected a number, at least 0",
  "--num_samples=0": "--num_samples=0: expected an integer, at least 1",
  "--max_new_tokens=nan": "--max_new_tokens=nan: expected an integer, at least 1",
  "--weights=f16": "--weights=f16: expected f32 or bf16 or q8_0",
  "--batch_size=3": "Unknown flag --batch_size: --help lists all flags",
};

for (const [line, message] of Object.entries(badTraining)) {
  Deno.test(`train ${line} is refused`, async () => {
    const error = await assertRejects(() => parseTrain(words(line)), ConfigError);
    assertEquals(error.message, message);
  });
}

for (const [line, message] of Object.entries(badSampling)) {
  Deno.test(`sample ${line} is refused`, async () => {
    const error = await assertRejects(() => parseSample(words(line)), ConfigError);
    assertEquals(error.message, message);
  });
}

Deno.test("deno.json's tasks are made of a few shared strings, and no task has all permissions", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  const fast = "DENO_V8_FLAGS=$(deno run --allow-env=NANOGPT_WIDE src/cli/v8_flags.ts) ", run = "deno run --no-prompt ";
  const read = "--allow-read ", files = "--allow-read --allow-write ", debug = "--allow-env=NANOGPT_DEBUG";
  const cache = "--allow-env=HOME,XDG_CACHE_HOME,LOCALAPPDATA,NANOGPT_DEBUG";
  const text = "--allow-net=raw.githubusercontent.com", hub = "huggingface.co,*.hf.co", models = `--allow-net=${hub} `;
  const itself = "--allow-run=$(deno eval -p 'Deno.execPath()') ", ffi = "--allow-ffi src/cli";
  const train = `${run}${files}${text},${hub} ${cache},INIT_CWD `, sample = `${run}${files}${models}${cache},INIT_CWD `;
  const commands = {
    train: `${fast}${train}src/cli/train.ts`,
    sample: `${fast}${sample}src/cli/sample.ts`,
    eval: `${fast}${sample}src/cli/eval.ts`,
    convert: `${sample}src/cli/convert.ts`,
    data: `${sample}src/cli/data.ts`,
    prepare: `${run}${files}${debug},INIT_CWD src/cli/prepare.ts`,
    tokenize: `${run}${read}${debug},INIT_CWD src/cli/tokenize.ts`,
    "train:dawn": `${train}${ffi}/train.ts --device=webgpu:dawn`,
    "train:native": `${fast}${train}${ffi}/train.ts --native`,
    "sample:dawn": `${sample}${ffi}/sample.ts --device=webgpu:dawn`,
    chat: `${fast}${sample}src/cli/chat.ts`,
    "chat:dawn": `${sample}${ffi}/chat.ts --device=webgpu:dawn`,
    finetune: `${fast}${sample}${itself}src/cli/finetune.ts`,
    "finetune:dawn": `${sample}${itself}${ffi}/finetune.ts --device=webgpu:dawn`,
    "finetune:native": `${fast}${sample}${itself}${ffi}/finetune.ts --native`,
    serve:
      `${fast}${run}${files}--allow-net=127.0.0.1,${hub} --allow-sys=systemMemoryInfo,statfs ${cache},INIT_CWD src/cli/serve.ts`,
    "serve:lan":
      `${fast}${run}${files}--allow-net=0.0.0.0,${hub} --allow-sys=systemMemoryInfo,statfs ${cache},INIT_CWD src/cli/serve.ts --host=0.0.0.0`,
    browser: `${run}--unstable-bundle --allow-read=. --allow-net=127.0.0.1 ${debug} examples/browser/serve.ts`,
    bench: `${fast}deno bench --no-prompt --allow-read --allow-ffi bench`,
    "bench:profile": `${fast}${run}${read}${debug} --allow-ffi bench/profile.ts`,
    "bench:scale": `${fast}${run}${read}--allow-write=docs ${debug} bench/scale.ts`,
    "bench:inference":
      `${fast}${run}${files}--allow-sys=loadavg ${debug} ${itself.trim()},node,python3 bench/inference.ts`,
    "bench:rl": `${fast}${run}${read}${debug} bench/rl.ts`,
    "bench:rl_speed": `${fast}${run}${read}${debug} --allow-ffi --allow-run=python3 bench/rl_speed.ts`,
    "bench:busy": `${fast}${run}${read}${debug} ${itself}bench/busy.ts`,
    "bench:serve": `${fast}${run}${files}--allow-net=127.0.0.1 ${debug} ${itself.trim()},llama-server bench/serve.ts`,
    "bench:gpu": `${run}${files}${text} ${cache} --allow-run=python3,nvidia-smi bench/gpu.ts`,
    "bench:peers":
      `${run}${files}--allow-sys=cpus,osRelease ${text} ${cache} ${itself.trim()},npm,python3 bench/peers.ts`,
  };
  for (const [name, command] of Object.entries(commands)) assertEquals(tasks[name].command, command, name);
  const others = Object.keys(tasks).filter((name) => !Object.hasOwn(commands, name));
  assertEquals(
    others.toSorted(),
    ["check", "docs", "golden", "pack", "test", "test:clients", "test:long"],
    "tasks that only this repository needs",
  );
  for (const { command } of Object.values<{ command: string }>(tasks)) {
    assert(!/(^| )(-A|--allow-all|--allow-run(?!=))\b/.test(command), command); // each program that a task may run is named
  }
});

const badConfigs = {
  "export default { batch_siz: 3 };":
    ": no flag is called batch_siz: the nearest flag is --batch_size, and --help lists all flags",
  'export default { batch_size: "3" };': ': batch_size = "3": expected an integer, at least 1',
  "export default { dropout: NaN };": ": dropout = NaN: expected a number, at least 0 and below 1",
  "export default { bias: undefined };": ": bias = undefined: expected True or False",
  "\n\nexport const a = ;": " cannot be loaded: SyntaxError: Expression expected (line 3)",
  "export default 3;": " does not export an object: write export default { batch_size: 12, … }",
  "export const config = {};": " does not export an object: write export default { batch_size: 12, … }",
  "export default [1];": " does not export an object: write export default { batch_size: 12, … }",
  "\nexport default {": " cannot be loaded: SyntaxError: Unexpected token `<eof>`.",
  'throw new Error("No\\ngood");': " cannot be loaded: No",
  'import "./nowhere.ts";': " cannot be loaded: Module not found",
};

for (const [source, message] of Object.entries(badConfigs)) {
  Deno.test(`a config file with ${JSON.stringify(source)} is refused`, async () => {
    const path = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(path, source);
    try {
      const error = await assertRejects(() => parseTrain([path]), ConfigError);
      assertStringIncludes(error.message, path + message);
      assert(!error.message.includes("\n"));
    } finally {
      await Deno.remove(path);
    }
  });
}

Deno.test("--help has a line for every flag with its value, and refuses a command line that cannot be parsed", async () => {
  const { help } = await parseTrain(["--help", "--n_layer=2"]);
  for (const name of Object.keys(trainFlags)) assertStringIncludes(help!, `  --${name}=`);
  assertStringIncludes(help!, "--n_layer=2 ");
  assertStringIncludes(help!, "--block_size=64 ");
  const { help: sampleHelp } = await parseSample(["-h"]);
  for (const name of Object.keys(sampleFlags)) assertStringIncludes(sampleHelp!, `  --${name}=`);
  assertStringIncludes(sampleHelp!, "--start=$'\\n' "); // in a shell's quoting
  await assertRejects(() => parseTrain(["--help", "--n_layer=0"]), ConfigError);
});

Deno.test("the name of a toggle turns it on, and it takes nanoGPT's values too", async () => {
  for (
    const [args, on] of [[[], false], [["--profile"], true], [["--profile=True"], true], [["--profile=False"], false]]
  ) {
    assertEquals((await parseTrain(args as string[])).values.profile, on);
    assertEquals((await parseSample(args as string[])).values.profile, on);
  }
});

Deno.test("a shell reads the text that --help shows for a newline, and top_k 0 and an empty start are valid", async () => {
  for (const text of ["\n", "it's\na \\ b\n"]) {
    const { stdout } = await new Deno.Command("bash", { args: ["-c", `printf %s ${show(text)}`] }).output();
    assertEquals(new TextDecoder().decode(stdout), text);
  }
  const { given } = await parseSample(["--start=", "--top_k=0"]);
  assertEquals(given, { start: "", top_k: 0 });
  assertEquals((await parseSample(["--start=", "--start=a"])).given, { start: "a" });
  assertEquals((await parseSample(["--start=a", "--start="])).given, { start: "" });
});

Deno.test("edit distance counts insertions, deletions and replacements", () => {
  assertEquals(editDistance("kitten", "sitting"), 3);
  assertEquals(editDistance("", "abc"), 3);
  assertEquals(editDistance("abc", ""), 3);
  assertEquals(editDistance("seed", "seed"), 0);
});

Deno.test("errors take at most two lines, and only an invalid command line exits with 2", () => {
  assertEquals(describeError(new DataError("a\nb\nc")), "a\nb");
  assertEquals(describeError(new Deno.errors.PermissionDenied("no")), "no");
  assertEquals(describeError(new TypeError("x is not a function\nat y")).split("\n").length, 2);
  assertStringIncludes(describeError(new TypeError("x is not a function")), "TypeError: x is not a function");
  assertEquals(describeError("text"), "text");
  const errors = [new ConfigError(""), new DataError(""), new CheckpointError(""), new TypeError(""), 1];
  assertEquals(errors.map(exitStatus), [2, 1, 1, 1, 1]);
});

Deno.test("the progress bar fits its line", () => {
  const state = { done: 500, total: 2000, loss: 1.98766, tokensPerSecond: 20123, left: 83.4 };
  const numbers = " 500/2000  loss 1.9877  20.1k tokens/s  1m23s left";
  assertEquals(bar(state, 200), `[${"#".repeat(10)}${"-".repeat(30)}]${numbers}`);
  for (const columns of [10, 40, 60, 79]) assert(bar(state, columns).length <= columns);
  assertEquals(bar({ ...state, done: 3, total: 0 }, 200).slice(0, 42), `[${"#".repeat(40)}]`);
  assertEquals([0, 59.6, 3599, 7261].map(duration), ["0s", "1m00s", "59m59s", "2h01m"]);
  assertEquals([12.3, 999.4, 12345].map(rate), ["12 tokens/s", "999 tokens/s", "12.3k tokens/s"]);
  const written: string[] = [],
    writeSync = (bytes: Uint8Array) => {
      written.push(new TextDecoder().decode(bytes));
      return bytes.length;
    };
  const progress = new Progress({ isTerminal: () => false, writeSync });
  progress.status(() => "a bar");
  progress.line("a line");
  progress.end();
  assertEquals(written, ["a line\n"]);
});

Deno.test("V8's flags are never empty, and have the flags of wide mode only on request", () => {
  assertEquals(v8Flags(false), "--no-liftoff");
  assertEquals(v8Flags(true).split(",").toSorted(), [
    "--experimental-wasm-revectorize",
    "--no-liftoff",
    "--no-wasm-bounds-checks",
    "--no-wasm-inlining",
  ]);
});

Deno.test("sample's flags become the options of generation, and our own flags change nothing by default", async () => {
  const nothing = {
    ...{ topP: 1, minP: 0, repetitionPenalty: 1, frequencyPenalty: 0, presencePenalty: 0 },
    ...{ stopStrings: [], overflow: "crop", cache: "f32" } as const,
  };
  const { values } = await parseSample([]);
  assertEquals(generationOptions(values), { maxNewTokens: 500, temperature: 0.8, topK: 200, ...nothing });
  const given = words(
    "--max_new_tokens=5 --temperature=1 --top_k=7 --top_p=0.9 --min_p=0.1 --repetition_penalty=1.2 --frequency_penalty=-1 " +
      "--presence_penalty=0.5 --stop=END --overflow=slide --cache=bf16",
  );
  assertEquals(generationOptions((await parseSample(given)).values), {
    ...{ maxNewTokens: 5, temperature: 1, topK: 7, topP: 0.9, minP: 0.1, repetitionPenalty: 1.2, frequencyPenalty: -1 },
    ...{ presencePenalty: 0.5, stopStrings: "END", overflow: "slide", cache: "bf16" },
  });
  for (
    const flag of ["--top_p=1.1", "--min_p=-1", "--repetition_penalty=0", "--frequency_penalty=x", "--overflow=roll"]
  ) {
    await assertRejects(() => parseSample([flag]), ConfigError, `${flag}: expected`);
  }
});

Deno.test("a line says why kernels are narrow only if another V8 is the reason", () => {
  const line = "narrow: the flags for wide kernels are known only for V8 15.0, and this is V8 16.1.2";
  assertEquals(whyNarrow({ arch: "x86_64", v8: "16.1.2" }), line);
  assertEquals(whyNarrow({ arch: "x86_64", v8: "15.0.245" }), undefined);
  assertEquals(whyNarrow({ arch: "aarch64", v8: "16.1.2" }), undefined);
});

Deno.test("the last line of a training run says so if the model with the lowest loss was not saved", () => {
  const last = (iters: readonly number[], more: { eval_only?: boolean } = {}) => {
    let printed = "";
    const writeSync = (bytes: Uint8Array) => {
      printed += new TextDecoder().decode(bytes);
      return bytes.length;
    };
    const values = {
      ...{ out_dir: "out", max_iters: 9, eval_only: false, seed: 1, device: "cpu", native: false },
      ...more,
    };
    const progress = new Progress({ isTerminal: () => false, writeSync });
    const report = new TrainReport(values as ReportValues, { task: "train", resumeCommand: "" }, progress);
    const losses = { trainLoss: 3, valLoss: 3, measures: {}, sinceBest: 0 };
    for (const iter of iters) report.event({ kind: "evaluation", ...losses, iter, best: true });
    report.finished(undefined);
    return printed.trim().split("\n").at(-1)!.replace(/, \d+s$/, "");
  };
  assertEquals(last([0]), "Done: lowest val loss 3.0000 at step 0 (before training; that model is not saved)");
  assertEquals(last([0], { eval_only: true }), "Done: lowest val loss 3.0000 at step 0");
  assertEquals(last([0, 5]), "Done: lowest val loss 3.0000 at step 5");
});
type ReportValues = ConstructorParameters<typeof TrainReport>[0];
