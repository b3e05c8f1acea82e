/** The flags of `sample`: nanoGPT's, with sample.py's defaults, and our own, which change nothing by default. */
import type { Declaration } from "./command.ts";
import { choice, type Flag, flagOf, float, int, type Snake, text, type Values } from "./flags.ts";
import type { SequencesOptions } from "../generate/options.ts";
import { type SamplingOptions, samplingRules } from "../../kernels/choose/rules.ts";
import { deviceFlags, modelFlags, torchFlags } from "./shared_flags.ts";

/** The sampling options that are numbers. */
type RuleName = Exclude<keyof SamplingOptions, "logitBias">;

const ruleNames = (Object.keys(samplingRules) as (keyof SamplingOptions)[])
  .filter((option): option is RuleName => samplingRules[option].help !== undefined);
/** A flag for each sampling option. Its default is in `defaults`, or else the value that changes nothing. */
export function samplingFlags(defaults: Partial<Record<RuleName, number>>): Record<Snake<RuleName>, Flag<number>> {
  const flags = ruleNames.map((option) => {
    const { neutral, range: { whole, ...range } = {}, help = "" } = samplingRules[option];
    return [flagOf(option), (whole ? int : float)(defaults[option] ?? neutral!, help, range)];
  });
  return Object.fromEntries(flags);
}

export const cacheFlag = choice(
  ["f32", "bf16"],
  "how the keys and values of attention are stored: f32; or bf16, which rounds them and takes half the memory",
);
export const seedFlag = int(1337, "the same seed draws the same text", { min: 0, max: 2 ** 32 - 1 });

export const sampleFlags = {
  ...modelFlags,
  tokenizer: text(
    "",
    "tokenizer to use instead of the model's, or for a ckpt.pt, which stores none: gpt2, cl100k_base, o200k_base, or a folder",
  ),
  start: {
    ...text("\n", "the prompt; FILE:path reads it from a file; empty: the token <|endoftext|>"),
    mayBeEmpty: true,
  },
  num_samples: int(10, "number of samples", { min: 1 }),
  max_new_tokens: int(500, "tokens to generate for each sample", { min: 1 }),
  ...samplingFlags({ temperature: 0.8, topK: 200 }),
  stop: text("", "end a sample before this text"),
  overflow: choice(
    ["crop", "slide"],
    "if the text is longer than the block size: crop feeds the last tokens, as in nanoGPT; slide drops the older half of a full block, which is faster",
  ),
  cache: cacheFlag,
  seed: seedFlag,
  ...deviceFlags,
  ...torchFlags,
};

export type SampleValues = Values<typeof sampleFlags>;

export const sampleDeclaration: Declaration<typeof sampleFlags> = {
  name: "sample",
  flags: sampleFlags,
  words: "config",
  help: {
    does: "Writes text with a trained model.",
    usage: "[config/NAME.ts]",
    notes:
      "A config file is a TypeScript module. Its default export is an object with the names below. Flags override the config\n" +
      "file.\n\n",
  },
};

/** Converts the values of the flags of {@linkcode samplingFlags} to options of the library. */
export const samplingOptions = (values: Record<Snake<RuleName>, number>): SamplingOptions =>
  Object.fromEntries(ruleNames.map((option) => [option, values[flagOf(option)]]));

/** Converts the values of the flags of `sample` to options of `generateSequences`. */
export function generationOptions(values: SampleValues): SequencesOptions {
  return {
    maxNewTokens: values.max_new_tokens,
    ...samplingOptions(values),
    stopStrings: values.stop || [],
    overflow: values.overflow,
    cache: values.cache,
  };
}
