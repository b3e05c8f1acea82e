/**
 * What generation costs with models of GPT-2's sizes and weights in f32, bf16 and q8_0: `deno task bench:inference`.
 *
 * The weights are random numbers, which take as much time and memory as trained weights. The first table is for one
 * text at a time. Each row is measured in a process of its own. It shows the memory that was estimated beforehand
 * (src/generate/memory.ts), the memory that the device took in the end, and the resident memory of the process; or an
 * error message if the model does not fit into memory. The tables that follow are for many texts at once, and compare
 * with other libraries (rows.ts).
 */
import { checkInference, createDevice, generate, inferenceNeeds } from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { bool, choice, float, int, text, type Values as ValuesOf } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import { ConfigError, DeviceError } from "../src/errors.ts";
import { benchRows, rowSides } from "./rows.ts";
import { randomModel } from "./subjects.ts";

/**
 * The config of a model of the given sizes. It has the tanh approximation of GELU, which GPT-2 uses, and which is the
 * only GELU that llama.cpp supports.
 */
const size = (nLayer: number, nHead: number, nEmbd: number, vocabSize = 50257, blockSize = 1024) => ({
  ...{ nLayer, nHead, nEmbd, vocabSize, blockSize, activation: "gelu_new" as const },
});
const MODELS = {
  "cpu-setting": size(4, 4, 128, 65, 64),
  "baby": size(6, 6, 384, 65, 256),
  "gpt2": size(12, 12, 768),
  "gpt2-medium": size(24, 16, 1024),
  "gpt2-large": size(36, 20, 1280),
  "gpt2-xl": size(48, 25, 1600),
};

const flags = {
  models: text(Object.keys(MODELS).join(","), "models to measure, separated by commas"),
  weights: text("f32,bf16,q8_0", "formats of their weights, separated by commas"),
  only: choice(["", "one", "many"], "one text, or many at once"),
  threads: int(navigator.hardwareConcurrency, "threads of the CPU device", { min: 1, max: 256 }),
  prompt: int(8, "tokens of the prompt, with one text", { min: 1 }),
  tokens: int(40, "tokens to generate, with one text", { min: 4 }),
  rows: text("", "numbers of texts at once; default: 1,8,16, and 64 for character models"),
  rounds: int(5, "rounds in which all sides take turns, with many texts", { min: 1 }),
  seconds: float(0.5, "least duration of a measurement, in seconds", { min: 0 }),
  llama: text("", "path of llama.cpp's llama-batched-bench, to compare with"),
  node_llama: text("", "folder in which npm has installed node-llama-cpp, to compare with"),
  busy: bool(false, "start even if other processes use the processors"),
  small: bool(false, "tiny models, to test that it runs"),
};
const TINY = size(2, 2, 32, 67, 32), MOST_LOAD = 0.5;
type Weights = "f32" | "bf16" | "q8_0";
type Values = ValuesOf<typeof flags>;

const HEAD = ["model", "weights", "estimated, MB", "taken, MB", "resident, MB", "first token, ms", "tokens/s"];

/**
 * Returns a line about the machine's load, which is the system's load average.
 *
 * @throws {ConfigError} if other processes use the processors
 */
export function quietMachine(load: number): string {
  const said = `load ${load.toFixed(2)} before the start`;
  if (load < MOST_LOAD) return said;
  throw new ConfigError(`${said}; expected less than ${MOST_LOAD}: stop other processes, or pass --busy=True`);
}

/** Measures one text with a model. Returns the cells of its table row, without the first cell, the model's name. */
async function measure(config: typeof MODELS["gpt2"], weights: Weights, values: Values): Promise<string[]> {
  const device = await createDevice("cpu", { threads: values.threads });
  const options = { device, weights, promptLength: values.prompt, maxNewTokens: values.tokens };
  try {
    await checkInference(config, options);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    return [weights, error.message.split("\n")[0], "", "", "", ""];
  }
  const { bytes } = await inferenceNeeds(config, options);
  const model = randomModel(device, config, weights), begin = performance.now(), times: number[] = [];
  const prompt = Array.from({ length: values.prompt }, (_, i) => i % config.vocabSize);
  for await (const _ of generate(model, prompt, { maxNewTokens: values.tokens, temperature: 0 })) {
    times.push(performance.now() - begin);
  }
  const [first, , settled] = times, rate = 1000 * (times.length - 3) / (times.at(-1)! - settled); // two capture
  const memory = [bytes, device.memory().reserved, Deno.memoryUsage().rss].map((bytes) => (bytes / 1e6).toFixed(2));
  device.close();
  return [weights, ...memory, first.toPrecision(3), rate.toPrecision(3)];
}

/**
 * Runs the benchmark.
 *
 * @param note prints a line about its progress
 */
export async function benchInference(
  args: string[],
  print: (line: string) => void,
  note: (line: string) => void = console.error,
): Promise<number> {
  const asked = benchValues(flags, { task: "bench:inference", args, print });
  if (!asked) return 0;
  const values: Values = asked; // a constant, so that its type is also narrowed in the functions below
  const names = values.models.split(","), kinds = values.weights.split(",");
  const [model] = names.filter((name) => !Object.hasOwn(MODELS, name));
  if (model !== undefined) throw new ConfigError(`--models has ${model}; expected some of ${Object.keys(MODELS)}`);
  const [kind] = kinds.filter((kind) => !["f32", "bf16", "q8_0"].includes(kind));
  if (kind !== undefined) throw new ConfigError(`--weights has ${kind}; expected some of f32, bf16, q8_0`);
  const counts = values.rows.split(",").filter(Boolean).map(Number), { small } = values;
  const wrong = counts.find((count) => !Number.isSafeInteger(count) || count < 1);
  if (wrong !== undefined) throw new ConfigError(`--rows has ${wrong}; expected positive integers, such as 1,8,16`);
  if (!small && !values.busy) print(quietMachine(Deno.loadavg()[0]));
  const chosen = names as (keyof typeof MODELS)[],
    configOf = (name: keyof typeof MODELS) => small ? TINY : MODELS[name];
  if (values.only !== "many") await oneText();
  if (values.only === "one") return 0;
  const sides = await rowSides(values, print);
  for (const name of chosen) {
    const config = configOf(name), usual = config.vocabSize < 1000 ? [1, 8, 16, 64] : [1, 8, 16];
    const options = { ...values, weights: kinds as Weights[], counts: counts.length ? counts : usual };
    await benchRows(name, config, { ...options, sides, print, note });
  }
  return 0;

  async function oneText(): Promise<void> {
    print(`| ${HEAD.join(" | ")} |\n|${" --- |".repeat(HEAD.length)}`);
    for (const name of chosen) {
      for (const weights of kinds as Weights[]) {
        note(`${name}, ${weights}`);
        if (names.length * kinds.length > 1 && !small) await row([`--models=${name}`, `--weights=${weights}`]);
        else print(`| ${[name, ...await measure(configOf(name), weights, values)].join(" | ")} |`);
      }
    }
  }

  async function row(of: string[]): Promise<void> {
    const { threads, prompt, tokens } = values;
    const same = Object.entries({ threads, prompt, tokens }).map(([flag, value]) => `--${flag}=${value}`);
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-prompt",
        "--allow-read",
        "--allow-env=NANOGPT_DEBUG",
        import.meta.url,
        ...of,
        ...same,
        "--only=one",
        "--busy=True",
      ],
    }).output();
    if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
    print(new TextDecoder().decode(stdout).trim().split("\n").at(-1)!);
  }
}

if (import.meta.main) await runCommand((args) => benchInference(args, console.log));
