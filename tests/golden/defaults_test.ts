/** Default hyper-parameters against nanoGPT's, which were typed by hand into defaults.json. */
import { sampleFlags } from "../../src/cli/sample_flags.ts";
import { trainFlags } from "../../src/cli/train_flags.ts";
import { createDevice } from "../../src/device/create.ts";
import { GPT, type GPTConfig } from "../../src/gpt.ts";
import defaults from "./defaults.json" with { type: "json" };

const camel = (name: string) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

function assertSame(actual: unknown, expected: unknown, what: string): void {
  if (!Object.is(actual, expected)) throw new Error(`${what} is ${actual} by default, nanoGPT's ${expected}`);
}

Deno.test("GPTConfig has nanoGPT's defaults", async () => {
  const device = await createDevice("reference");
  // Leaves out one field at a time and makes all other fields small: with all defaults, the model has 124 million weights.
  const small: GPTConfig = { blockSize: 1, vocabSize: 1, nLayer: 1, nHead: 1, nEmbd: 1, dropout: 0, bias: false };
  for (const [name, expected] of Object.entries(defaults.GPTConfig)) {
    const field = camel(name) as keyof GPTConfig;
    const { [field]: _, ...others } = field === "nHead" ? { ...small, nEmbd: defaults.GPTConfig.n_head } : small;
    const model = new GPT(others, { device });
    assertSame(model.config[field], expected, name);
    model.dispose();
  }
});

for (const [command, flags] of Object.entries({ train: trainFlags, sample: sampleFlags })) {
  Deno.test(`flags of ${command} have nanoGPT's defaults`, () => {
    for (const [name, expected] of Object.entries(defaults[command as "train" | "sample"])) {
      const flag = flags[name as keyof typeof flags] as { fallback: unknown } | undefined;
      assertSame(flag?.fallback, expected, `--${name}`);
    }
  });
}
