/**
 * What generating costs with models of GPT-2's sizes, weights in f32, bf16 and q8_0: `deno task bench:inference`.
 *
 * The weights are random numbers, which takes no less time and memory than trained ones. First one text: each row has a
 * process of its own, for it shows that process' resident memory, beside what was estimated before anything was made
 * (src/generate/memory.ts) and what the device has taken in the end. What does not fit is a row that says so. Then many texts
 * at once, beside others (rows.ts).
 */
import { checkInference, createDevice, generate, inferenceNeeds } from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { bool, choice, float, int, text, type Values as ValuesOf } from "../src/cli/flags.ts";
import { benchValues } from "./values.ts";
import { ConfigError, DeviceError } from "../src/errors.ts";
import { benchRows, rowSides } from "./rows.ts";
import { randomModel } from "./subjects.ts";

/** The tanh approximation of GELU is GPT-2's, and the one that llama.cpp has. */
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
  models: text(Object.keys(MODELS).join(","), "which of these to measure"),
  weights: text("f32,bf16,q8_0", "how their matrices are stored"),
  only: choice(["", "one", "many"], "one text, or many at once"),
  threads: int(navigator.hardwareConcurrency, "that compute", { min: 1, max: 256 }),
  prompt: int(8, "tokens of one text that are read before the first", { min: 1 }),
  tokens: int(40, "that are written", { min: 4 }),
  rows: text("", "how many texts at once; default: 1,8,16, and of the character models 64"),
  rounds: int(5, "in which all take turns at many texts", { min: 1 }),
  seconds: float(0.5, "how long a measurement in a round takes at least", { min: 0 }),
  llama: text("", "path of llama.cpp's llama-batched-bench, to be measured beside ours"),
  node_llama: text("", "folder in which npm has installed node-llama-cpp, likewise"),
  busy: bool(false, "begin at any load"),
  small: bool(false, "tiny models: whether it runs, and not how fast"),
};
const TINY = size(2, 2, 32, 67, 32), MOST_LOAD = 0.5;
type Weights = "f32" | "bf16" | "q8_0";
type Values = ValuesOf<typeof flags>;

const HEAD = ["model", "weights", "estimated, MB", "taken, MB", "resident, MB", "first token, ms", "tokens/s"];

/** @throws {ConfigError} when others would take a part of the processors */
export function quietMachine(load: number): string {
  const said = `load ${load.toFixed(2)} before the start`;
  if (load < MOST_LOAD) return said;
  throw new ConfigError(`${said}; expected less than ${MOST_LOAD}: wait until others are done, or give --busy=True`);
}

/** The cells of a row behind the model's name. */
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
  const [first, , settled] = times, rate = 1000 * (times.length - 3) / (times.at(-1)! - settled); // two make the program
  const memory = [bytes, device.memory().reserved, Deno.memoryUsage().rss].map((bytes) => (bytes / 1e6).toFixed(2));
  device.close();
  return [weights, ...memory, first.toPrecision(3), rate.toPrecision(3)];
}

/** @param note takes a line about what is going on */
export async function benchInference(
  args: string[],
  print: (line: string) => void,
  note: (line: string) => void = console.error,
): Promise<number> {
  const asked = benchValues(flags, { task: "bench:inference", args, print });
  if (!asked) return 0;
  const values: Values = asked; // which functions below see, too
  const names = values.models.split(","), kinds = values.weights.split(",");
  const [model] = names.filter((name) => !Object.hasOwn(MODELS, name));
  if (model !== undefined) throw new ConfigError(`--models has ${model}; expected some of ${Object.keys(MODELS)}`);
  const [kind] = kinds.filter((kind) => !["f32", "bf16", "q8_0"].includes(kind));
  if (kind !== undefined) throw new ConfigError(`--weights has ${kind}; expected some of f32, bf16, q8_0`);
  const counts = values.rows.split(",").filter(Boolean).map(Number), { small } = values;
  const wrong = counts.find((count) => !Number.isSafeInteger(count) || count < 1);
  if (wrong !== undefined) throw new ConfigError(`--rows has ${wrong}; expected whole numbers above 0, as 1,8,16`);
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
