/**
 * Where the time of a training step goes: `deno task bench:profile --setting=cpu`.
 *
 * Runs steps of the real trainer on random tokens, first without a profile, then with every launch timed. Each kernel
 * is compared with a limit of this machine, measured beforehand. For products the limit is the rate of the fastest
 * square product, whose operands stay in the caches. For all other kernels it is the bandwidth of adding arrays that
 * are in no cache. A kernel above 100 % has its operands in a cache. The time of a step outside of kernels is spent by
 * the trainer: launches, batches, metrics, events.
 */
import { matmulNT } from "../kernels/matmul/kernel.ts";
import { createDevice, GPT, Profile, RandomGenerator, Trainer } from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { choice, int, toggle } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import type { CpuOptions } from "../src/device/cpu.ts";
import { launch } from "../src/engine/launch.ts";
import { loadNative } from "../src/native/load.ts";
import { add } from "../src/ops/add.ts";
import type { Setting } from "./measures.ts";
import { babyGPT, cpuSetting, gpt2 } from "./settings.ts";

const flags = {
  setting: choice(["cpu", "baby", "gpt2"], "nanoGPT's CPU setting, the baby GPT, or GPT-2 (124M)"),
  steps: int(100, "steps to measure; as many more are run to time the kernels", { min: 1 }),
  threads: int(navigator.hardwareConcurrency, "threads of the CPU device", { min: 1, max: 256 }),
  native: toggle("matrix products in machine code; uses --allow-ffi, which permits any code"),
};
const settings = { cpu: cpuSetting, baby: babyGPT, gpt2 };

const WARM_UP = 3;
const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** Milliseconds of the fastest of `repeats` calls. */
function fastest(repeats: number, body: () => void): number {
  let best = Infinity;
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    body();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

/**
 * Measures this machine's limits: `flops`, the multiplications and additions per millisecond of a square product, and
 * `bytes`, the bytes per millisecond that an addition of large arrays reads and writes.
 */
async function limits(options: CpuOptions): Promise<{ flops: number; bytes: number }> {
  const device = await createDevice("cpu", options);
  const size = 384, length = 1 << 23;
  const [a, b, c] = [0, 1, 2].map(() => device.empty([1, size, size]));
  const [x, y] = [0, 1].map(() => device.empty([length]));
  for (const tensor of [a, b, x, y]) device.fill(tensor.storage, (values) => values.fill(1));
  const product = fastest(200, () => launch(matmulNT, { a, b, c }));
  const sum = fastest(20, () => add(x, y).dispose());
  device.close();
  return { flops: 2 * size ** 3 / product, bytes: 3 * 4 * length / sum };
}

/**
 * The median time of `steps` training steps, in milliseconds. If a profile is passed, each launch in these steps is
 * timed.
 */
async function measure(
  { model: config, batchSize }: Setting,
  { steps, profile, ...options }: CpuOptions & { steps: number; profile?: Profile },
): Promise<number> {
  const device = await createDevice("cpu", options), generator = new RandomGenerator(1337);
  device.profile = profile;
  const tokens = Int32Array.from({ length: 10_000 }, () => generator.randint(config.vocabSize!));
  const gpt = new GPT(config, { device, generator });
  const run = { maxIters: 1e9, evalInterval: 1e9, evalIters: 1, logInterval: 1, gradientAccumulationSteps: 1 };
  using trainer = new Trainer(gpt, { train: tokens, val: tokens }, { ...run, batchSize, generator });
  const times: number[] = [];
  for await (const event of trainer.run()) {
    if (event.kind !== "step") continue;
    if (event.iter >= WARM_UP) times.push(event.ms);
    if (event.iter === WARM_UP - 1) profile?.clear();
    if (times.length === steps) break;
  }
  device.close();
  return median(times);
}

export async function benchProfile(args: string[], print: (line: string) => void): Promise<number> {
  const values = benchValues(flags, { task: "bench:profile", args, print });
  if (!values) return 0;
  const setting = settings[values.setting as keyof typeof settings]({ small: false });
  const native = values.native ? await loadNative() : undefined;
  if (native?.why) print(native.why);
  const { steps } = values, profile = new Profile(), device = { threads: values.threads, native };
  const most = await limits(device), ms = await measure(setting, { ...device, steps });
  await measure(setting, { ...device, steps, profile });
  const kernels = profile.total.ms / steps, rest = ms - kernels;
  print(
    `${setting.name}: ${ms.toFixed(2)} ms a step, ${kernels.toFixed(2)} ms in kernels; the rest, ${
      (1000 * rest).toFixed(0)
    } µs, is ${(100 * rest / ms).toFixed(1)} %`,
  );
  print(`Limits: ${(most.flops / 1e6).toFixed(0)} GF/s, ${(most.bytes / 1e6).toFixed(1)} GB/s\n`);
  const line = (cells: readonly string[]) => print(`| ${cells.join(" | ")} |`);
  const heads = ["kernel", "launches a step", "ms a step", "share", "rate", "of the limit"];
  line(heads);
  line(heads.map(() => "---"));
  for (const [name, row] of profile.rows) {
    const [rate, limit, unit] = row.flops ? [row.flops, most.flops, "GF/s"] : [row.bytes, most.bytes, "GB/s"];
    line([
      name,
      (row.calls / steps).toFixed(0),
      (row.ms / steps).toFixed(3),
      `${(100 * row.ms / profile.total.ms).toFixed(1)} %`,
      `${(rate / row.ms / 1e6).toFixed(1)} ${unit}`,
      `${(100 * rate / row.ms / limit).toFixed(0)} %`,
    ]);
  }
  return 0;
}

if (import.meta.main) await runCommand((args) => benchProfile(args, console.log));
