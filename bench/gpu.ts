/**
 * How fast the GPU computes, compared with PyTorch on the same GPU: `deno task bench:gpu`.
 *
 * Measures f32 matrix products, training of nanoGPT's baby GPT and of its CPU setting, and decoding, in rounds in which
 * this library and PyTorch take turns. The first round, in which kernels compile, is not counted. Prints a table in
 * Markdown with the best and the median of the rounds. The ratio is this library's median rate over PyTorch's in f32
 * with TF32 off; PyTorch's rates with TF32 and bf16 are shown as well. If PyTorch cannot run, because python3, torch or
 * a CUDA device is missing, a line gives the reason. `--full` also trains shakespeare_char to its end.
 */
import { createDevice, type DeviceName, GPT, RandomGenerator, Trainer } from "../mod.ts";
import babyConfig from "../config/train_shakespeare_char.ts";
import { runCommand } from "../src/cli/command.ts";
import { bool, choice, float, int, text } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import { modelConfig, optionsOf } from "../src/cli/train_command.ts";
import { loadText } from "../src/data/load_text.ts";
import { splitTokens } from "../src/data/split.ts";
import type { Device } from "../src/engine/device.ts";
import { CharacterTokenizer } from "../src/tokenizer/character.ts";
import { decoding, type Measure, type Product, product, training } from "./measures.ts";
import { Peer, startPyTorch } from "./peer.ts";
import { type Ask, type RoundsOptions, show, takeTurns } from "./rounds.ts";
import { babyGPT, cpuSetting, trainValues } from "./settings.ts";
import { subject } from "./subjects.ts";

const flags = {
  device: text("webgpu", "device, as in createDevice: webgpu, webgpu:software, webgpu:dawn, cpu"),
  pytorch: choice(["cuda", "cpu", "none"], "device of PyTorch, or none to leave PyTorch out"),
  rounds: int(5, "number of rounds that are counted", { min: 1 }),
  seconds: float(0.5, "least duration of a measurement, in seconds", { min: 0 }),
  small: bool(false, "tiny sizes, to test that it runs, on any device"),
  full: bool(false, "also train shakespeare_char to its end"),
  input: text("", "text file for --full; default: tiny Shakespeare, downloaded once"),
};

/**
 * Products to measure; the rows of the first matrix are tokens. First 4096² as a yardstick, then the layers of the baby
 * GPT (64 · 256 tokens) and of GPT-2 (12 · 1024 tokens), then layers for one token.
 */
const PRODUCTS: Product[] = [
  ...(["NN", "NT", "TN"] as const).map((form): Product => [form, 4096, 4096, 4096]),
  ["NT", 16384, 384, 1536],
  ["NN", 16384, 1536, 384],
  ["TN", 1536, 16384, 384],
  ["NT", 16384, 384, 65],
  ["NT", 12288, 768, 3072],
  ["NN", 12288, 3072, 768],
  ["TN", 3072, 12288, 768],
  ["NT", 1, 384, 1536],
  ["NT", 1, 768, 50304],
];
const SMALL_PRODUCTS: Product[] = [["NN", 64, 64, 64], ["NT", 48, 16, 20], ["TN", 16, 48, 20], ["NT", 1, 16, 65]];
type Print = (line: string) => void;

/**
 * Runs the benchmark.
 *
 * @param print prints a line of the result
 * @param note prints a line about its progress
 */
export async function benchGpu(args: string[], print: Print, note: Print = console.error): Promise<number> {
  const values = benchValues(flags, { task: "bench:gpu", args, print });
  if (!values) return 0;
  const { small, rounds, seconds } = values;
  const device = await createDevice(values.device as DeviceName);
  const none = values.pytorch === "none";
  const pytorch = none ? Peer.absent("--pytorch=none") : await startPyTorch({ args: [values.pytorch] });
  print(`${new Date().toISOString().slice(0, 10)}, Deno ${Deno.version.deno}, ${await describe(device)}`);
  print(pytorch.device ?? `PyTorch is left out: ${pytorch.error}`);
  const baby = babyGPT({ small }), cpu = cpuSetting({ small });
  const measures = [
    ...(small ? SMALL_PRODUCTS : PRODUCTS).map(product),
    training(baby, "tokens/s"),
    training(cpu, "steps/s"),
    decoding(baby),
  ];
  print("\n|  |  | ours, best | median | PyTorch f32, best | median | ratio | TF32, median | bf16, median |");
  print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  try {
    for (const measure of measures) print(await row(measure, device, pytorch, { rounds, seconds, note }));
    if (values.full) print(`\n${await full(device, { small, input: values.input, note })}`);
  } finally {
    await pytorch.close();
    device.close();
  }
  return 0;
}

/** Describes the adapter, with the version of the driver if nvidia-smi is installed. */
async function describe(device: Device): Promise<string> {
  const name = "adapter" in device ? `${device.name}: ${device.adapter}` : device.name;
  try {
    const query = ["--query-gpu=name,driver_version", "--format=csv,noheader"];
    const { stdout } = await new Deno.Command("nvidia-smi", { args: query }).output();
    return `${name}; ${new TextDecoder().decode(stdout).trim()} (nvidia-smi: name, driver)`;
  } catch {
    return `${name}; ${Deno.build.os}, driver unknown without nvidia-smi`;
  }
}

async function row(measure: Measure, device: Device, pytorch: Peer, options: RoundsOptions): Promise<string> {
  const { name, unit, request } = measure;
  using ours = subject(device, request);
  const theirs = (precision: string): Ask => (seconds) => pytorch.rate({ ...request, precision, seconds });
  const sides = { ours: ours.run, f32: theirs("f32"), tf32: theirs("tf32"), bf16: theirs("bf16") };
  const figures = await takeTurns(measure, sides, options);
  const ratio = figures.ours && figures.f32 && figures.ours.median / figures.f32.median;
  const numbers = [figures.ours?.best, figures.ours?.median, figures.f32?.best, figures.f32?.median].map((n) =>
    show(n)
  );
  const others = [figures.tf32?.median, figures.bf16?.median].map((n) => show(n));
  return `| ${[name, unit, ...numbers, show(ratio, 2), ...others].join(" | ")} |`;
}

/** Trains config/train_shakespeare_char.ts to its end, evaluations included. */
async function full(
  device: Device,
  { small, input, note }: { small: boolean; input: string; note: Print },
): Promise<string> {
  const values = trainValues(babyConfig, small), config = modelConfig(values), options = optionsOf(values);
  const { text, source } = await loadText({ input: input || undefined, onNote: note });
  const tokenizer = CharacterTokenizer.fromText(text), data = splitTokens(text, tokenizer, config);
  const generator = new RandomGenerator(1337), begin = performance.now();
  const model = new GPT({ ...config, vocabSize: tokenizer.vocabSize }, { device, generator });
  using trainer = new Trainer(model, data, { ...options, generator });
  let valLoss = Infinity, evaluations = 0;
  for await (const event of trainer.run()) {
    if (event.kind !== "evaluation") continue;
    evaluations++;
    valLoss = Math.min(valLoss, event.valLoss);
    note(`iteration ${event.iter}: validation loss ${event.valLoss.toFixed(4)}`);
  }
  const seconds = (performance.now() - begin) / 1000;
  return `shakespeare_char on ${source}: ${trainer.iter - 1} iterations with ${evaluations} evaluations in ` +
    `${seconds.toFixed(1)} s, lowest validation loss ${valLoss.toFixed(4)}`;
}

if (import.meta.main) await runCommand((args) => benchGpu(args, console.log));
