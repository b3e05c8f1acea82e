/**
 * What generating costs with models of GPT-2's sizes, weights in f32 and kept in bf16: `deno task bench:inference`.
 *
 * The weights are random numbers, which takes no less time and memory than trained ones. Each row has a process of its own,
 * for it shows that process' resident memory, beside what was estimated before anything was made (src/generate/memory.ts)
 * and what the device has taken in the end. What does not fit is a row that says so.
 */
import { checkInference, createDevice, generate, GPT, inferenceNeeds, RandomGenerator, Storage } from "../mod.ts";
import { runCommand } from "../src/cli/command.ts";
import { bool, describeFlags, fallbacks, int, parseCommandLine, text } from "../src/cli/flags.ts";
import { ConfigError, DeviceError } from "../src/errors.ts";

const size = (nLayer: number, nHead: number, nEmbd: number, vocabSize = 50257, blockSize = 1024) => ({
  ...{ nLayer, nHead, nEmbd, vocabSize, blockSize },
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
  weights: text("f32,bf16", "how they are kept"),
  threads: int(navigator.hardwareConcurrency, "that compute", { min: 1, max: 256 }),
  prompt: int(8, "tokens that are read before the first", { min: 1 }),
  tokens: int(40, "that are written", { min: 4 }),
  small: bool(false, "tiny models: whether it runs, and not how fast"),
};
type Weights = "f32" | "bf16" | "q8_0";
type Values = ReturnType<typeof fallbacks<typeof flags>>;

const HEAD = ["model", "weights", "estimated, MB", "taken, MB", "resident, MB", "first token, ms", "tokens/s"];

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
  const model = new GPT(config, { device, weights, inference: true, initialize: false }).eval(),
    numbers = new Float32Array(2 ** 20);
  new RandomGenerator(1337).normal(numbers, 0, 0.02);
  for (const { storage: { block, offset, length } } of model.parameters()) {
    for (let at = 0; at < length; at += numbers.length) {
      const part = numbers.subarray(0, length - at);
      device.write(new Storage(block, part.length, offset + at), part);
    }
  }
  const begin = performance.now(), times: number[] = [];
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
  const { given, help } = parseCommandLine(flags, args), values: Values = { ...fallbacks(flags), ...given };
  if (help) {
    print(`deno task bench:inference [--name=value …]\n\n${describeFlags(flags, values)}`);
    return 0;
  }
  const names = values.models.split(","), kinds = values.weights.split(",");
  const [model] = names.filter((name) => !Object.hasOwn(MODELS, name));
  if (model !== undefined) throw new ConfigError(`--models has ${model}; expected some of ${Object.keys(MODELS)}`);
  const [kind] = kinds.filter((kind) => !["f32", "bf16", "q8_0"].includes(kind));
  if (kind !== undefined) throw new ConfigError(`--weights has ${kind}; expected some of f32, bf16, q8_0`);
  print(`| ${HEAD.join(" | ")} |\n|${" --- |".repeat(HEAD.length)}`);
  for (const name of names as (keyof typeof MODELS)[]) {
    for (const weights of kinds as Weights[]) {
      note(`${name}, ${weights}`);
      if (names.length * kinds.length > 1 && !values.small) await row([`--models=${name}`, `--weights=${weights}`]);
      else {
        const config = values.small ? size(2, 2, 32, 67, 32) : MODELS[name];
        print(`| ${[name, ...await measure(config, weights, values)].join(" | ")} |`);
      }
    }
  }
  return 0;

  async function row(of: string[]): Promise<void> {
    const { threads, prompt, tokens } = values;
    const same = Object.entries({ threads, prompt, tokens }).map(([flag, value]) => `--${flag}=${value}`);
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--allow-read", "--allow-env=NANOGPT_DEBUG", import.meta.url, ...of, ...same],
    }).output();
    if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
    print(new TextDecoder().decode(stdout).trim().split("\n").at(-1)!);
  }
}

if (import.meta.main) await runCommand((args) => benchInference(args, console.log));
