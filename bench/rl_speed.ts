/**
 * How long an iteration of reinforcement learning takes. In an iteration, nanoGPT's CPU setting writes 64 completions
 * of 16 tokens to prompts of 16 tokens, the completions are scored, and the model learns from them. The time is
 * compared with a plain training step and, if they are installed, with TRL's trainers on the same cores:
 *
 *     pip install --no-deps --target FOLDER trl==1.12.0
 *     pip install --no-deps trl==1.16.0
 *     deno task bench:rl_speed --trl_ppo=FOLDER --trl_grpo=True
 *
 * All sides take turns: PPO, GRPO, their parts, and TRL. The table has each side's fastest iteration.
 */
import { createDevice, GPT, type GPTConfig, RandomGenerator, Rows, type Task, Trainer } from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { bool, int, text, toggle } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import { plainReward, PolicyGradient, ProximalPolicy, Roller, ValueModel } from "../src/finetune/mod.ts";
import { loadNative } from "../src/native/load.ts";

const flags = {
  threads: int(2, "threads of the CPU device", { min: 1, max: 256 }),
  rounds: int(3, "number of times that each side is measured", { min: 1 }),
  iterations: int(5, "iterations in a measurement", { min: 2 }),
  native: toggle("matrix products in machine code; needs --allow-ffi, which permits any code"),
  trl_ppo: text("", "a folder with trl 1.12.0, to compare with"),
  trl_grpo: bool(false, "compare with trl 1.16.0, which must be installed"),
  small: bool(false, "tiny sizes, to test that it runs"),
};

const SETTING = { vocabSize: 65, blockSize: 64, nLayer: 4, nHead: 4, nEmbd: 128 };
const SIZES = { rows: 64, prompt: 16, tokens: 16, epochs: 4 }, GROUPS = 8;
const SMALL = { ...SETTING, nLayer: 1, nHead: 1, nEmbd: 16 };

/**
 * Runs some iterations. Returns the milliseconds of each except the first, in which kernels compile and programs are
 * captured.
 */
type Side = () => Promise<number[]>;

/**
 * Runs a trainer whose iterations have `updates` updates each. Returns the milliseconds of each iteration except the
 * first.
 */
async function iterations(trainer: Trainer, updates: number): Promise<number[]> {
  const found: number[] = [];
  let begin = performance.now();
  for await (const event of trainer.run()) {
    if (event.kind !== "step" || (event.iter + 1) % updates !== 0) continue;
    found.push(performance.now() - begin);
    begin = performance.now();
  }
  return found.slice(1);
}

const ONCE = { gradientAccumulationSteps: 1, evalInterval: 1e9, evalIters: 1, logInterval: 1, decayLr: false };

/**
 * Runs the benchmark.
 *
 * @param note prints a line about its progress
 */
export async function benchRlSpeed(
  args: string[],
  print: (line: string) => void,
  note: (line: string) => void = console.error,
): Promise<number> {
  const values = benchValues(flags, { task: "bench:rl_speed", args, print });
  if (!values) return 0;
  const { threads, rounds, small } = values, config: GPTConfig = { ...small ? SMALL : SETTING, dropout: 0, bias: true };
  const native = values.native ? await loadNative() : undefined;
  if (native?.why) note(native.why);
  const device = await createDevice("cpu", { threads, native }), generator = new RandomGenerator(1337);
  const { rows, prompt, tokens, epochs } = SIZES, reward = plainReward("threes", ({ ids }) => ids.indexOf(3));
  const model = () => new GPT(config, { device, seed: 1337 });
  const prompts = Array.from({ length: rows }, () => ({
    ids: Int32Array.from({ length: prompt }, () => generator.randint(config.vocabSize)),
    prompt: "",
  }));

  /** Measures plain training steps of the model. */
  const plain: Side = async () => {
    const text = Int32Array.from({ length: 10_000 }, () => generator.randint(config.vocabSize));
    using policy = model();
    using trainer = new Trainer(policy, { train: text, val: text }, {
      ...ONCE,
      batchSize: 12,
      maxIters: 10 * values.iterations,
    });
    return await iterations(trainer, 1);
  };
  /** Measures iterations of a reinforcement learning task, with `updates` updates each. */
  const learning = (make: (policy: GPT, reference: GPT) => Task & Disposable, updates: number): Side => async () => {
    using policy = model();
    using reference = model().freeze();
    using task = make(policy, reference);
    using trainer = new Trainer(policy, task, {
      ...ONCE,
      batchSize: rows,
      maxIters: updates * values.iterations - 1,
      learningRate: 1e-5,
    });
    const found = await iterations(trainer, updates);
    task.module?.dispose();
    return found;
  };
  const proximal = (beside: boolean) =>
    learning((policy, reference) => {
      const sizes = { batchSize: rows, maxNewTokens: tokens, epochs, temperature: 0.7, decode: () => "" };
      const value = beside ? new ValueModel(model()) : undefined;
      return new ProximalPolicy(policy, { train: prompts, val: prompts }, {
        ...sizes,
        reference,
        rewards: [reward],
        value,
      });
    }, epochs);
  /** Measures GRPO with TRL's defaults: one update per iteration, and no reference. */
  const grouped = learning((policy) =>
    new PolicyGradient(policy, { train: prompts, val: prompts }, {
      ...{ batchSize: rows, numGenerations: GROUPS, maxNewTokens: tokens, rewards: [reward], decode: () => "" },
    }), 1);
  const groups = prompts.map((_, i) => prompts[i - i % GROUPS].ids);
  /**
   * Measures only the completions of an iteration, made by `write`. The weights change before each iteration, as in
   * training.
   */
  const writing =
    (open: (policy: GPT) => Disposable & { write(first: number): Promise<unknown> }): Side => async () => {
      using policy = model();
      using writer = open(policy);
      const found: number[] = [];
      for (let i = 0; i <= values.iterations; i++) {
        for (const { storage } of policy.parameters()) device.write(storage, await device.read(storage));
        const begin = performance.now();
        await writer.write(i * rows);
        found.push(performance.now() - begin);
      }
      return found.slice(1);
    };
  const rollouts = writing((policy) => {
    const roller = new Roller(policy, { maxNewTokens: tokens });
    const write = (first: number) => roller.roll(groups, { seed: 1, first });
    return { write, [Symbol.dispose]: () => roller[Symbol.dispose]() };
  });
  const plainRows = writing((policy) => {
    const texts = new Rows(policy, { slots: rows, piece: rows * prompt });
    const write = (first: number) =>
      Promise.all(groups.map(async (prompt, i) => {
        for await (const _ of texts.add({ prompt, maxNewTokens: tokens, seed: first + i, draws: "philox" }));
      }));
    return { write, [Symbol.dispose]: () => texts[Symbol.dispose]() };
  });
  const python = (script: string, folder: string): Side => async () => {
    const { vocabSize, blockSize, nLayer, nHead, nEmbd } = config;
    const sizes = {
      vocab_size: vocabSize,
      block_size: blockSize,
      n_layer: nLayer,
      n_head: nHead,
      n_embd: nEmbd,
      ...SIZES,
    };
    const asked = Object.entries({ threads, iterations: values.iterations, ...sizes }).map(([name, value]) =>
      `--${name}=${value}`
    );
    const command = new Deno.Command("python3", {
      args: [new URL(script, import.meta.url).pathname, ...asked],
      env: folder ? { PYTHONPATH: folder } : {},
      stdout: "piped",
    });
    const { success, stdout } = await command.output();
    if (!success) throw new Error(`${script} has failed`);
    const lines = new TextDecoder().decode(stdout).split("\n").filter((line) => line.startsWith("{"));
    return lines.map((line) => Number(JSON.parse(line).ms)).slice(1);
  };

  const sides: Record<string, Side> = {
    "a plain step of 768 tokens": plain,
    "PPO, value head": proximal(false),
    "PPO, value model": proximal(true),
    "GRPO": grouped,
    "its completions": rollouts,
    "rows of as many tokens": plainRows,
    ...values.trl_grpo && { "GRPO, TRL 1.16": python("trl_grpo.py", "") },
    ...values.trl_ppo && { "PPO, value model, TRL 1.12": python("trl_ppo.py", values.trl_ppo) },
  };
  const best: Record<string, number> = {};
  for (let round = 1; round <= rounds; round++) {
    for (const [name, side] of Object.entries(sides)) {
      note(`round ${round} of ${rounds}: ${name}`);
      best[name] = Math.min(best[name] ?? Infinity, ...await side());
    }
  }
  device.close();
  const step = best["a plain step of 768 tokens"];
  print(`\n| ${threads} threads${values.native ? ", native" : ""} | ms | plain steps |\n|---|---|---|`);
  for (const [name, ms] of Object.entries(best)) print(`| ${name} | ${ms.toFixed(1)} | ${(ms / step).toFixed(1)} |`);
  return 0;
}

if (import.meta.main) await runCommand((args) => benchRlSpeed(args, console.log));
