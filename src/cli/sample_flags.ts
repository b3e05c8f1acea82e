/** What `sample` can be told: nanoGPT's flags with sample.py's defaults, and ours, which change nothing by default. */
import type { Declaration } from "./command.ts";
import { choice, type Flag, flagOf, float, int, type Snake, text, type Values } from "./flags.ts";
import type { SequencesOptions } from "../generate/options.ts";
import { type SamplingOptions, samplingRules } from "../../kernels/choose/rules.ts";
import { deviceFlags, modelFlags, torchFlags } from "./shared_flags.ts";

/** The rules of sampling that are numbers. */
type RuleName = Exclude<keyof SamplingOptions, "logitBias">;

const ruleNames = (Object.keys(samplingRules) as (keyof SamplingOptions)[])
  .filter((option): option is RuleName => samplingRules[option].help !== undefined);
/** A flag for each rule of sampling: its neutral value, unless there is another default. */
export function samplingFlags(defaults: Partial<Record<RuleName, number>>): Record<Snake<RuleName>, Flag<number>> {
  const flags = ruleNames.map((option) => {
    const { neutral, range: { whole, ...range } = {}, help = "" } = samplingRules[option];
    return [flagOf(option), (whole ? int : float)(defaults[option] ?? neutral!, help, range)];
  });
  return Object.fromEntries(flags);
}

export const cacheFlag = choice(
  ["f32", "bf16"],
  "how keys and values are stored: f32; or bf16, rounded, in half the memory",
);
export const seedFlag = int(1337, "the same seed draws the same text", { min: 0, max: 2 ** 32 - 1 });

export const sampleFlags = {
  ...modelFlags,
  tokenizer: text("", "instead of the model's own: gpt2, cl100k_base, o200k_base, or a folder; a ckpt.pt holds none"),
  start: {
    ...text("\n", "the text to go on from; FILE:path reads it from a file; empty is the end of the text before"),
    mayBeEmpty: true,
  },
  num_samples: int(10, "samples to draw", { min: 1 }),
  max_new_tokens: int(500, "tokens in each", { min: 1 }),
  ...samplingFlags({ temperature: 0.8, topK: 200 }),
  stop: text("", "a sample ends before this text"),
  overflow: choice(
    ["crop", "slide"],
    "past the block size: crop, as nanoGPT; or slide, which is faster, and begins anew with half the window",
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
  help: { does: "Writes text with a trained model.", usage: "[config/NAME.ts]" },
};

/** What the flags of {@linkcode samplingFlags} mean to generation. */
export const samplingOptions = (values: Record<Snake<RuleName>, number>): SamplingOptions =>
  Object.fromEntries(ruleNames.map((option) => [option, values[flagOf(option)]]));

/** What the flags mean to `generateSequences`. */
export function generationOptions(values: SampleValues): SequencesOptions {
  return {
    maxNewTokens: values.max_new_tokens,
    ...samplingOptions(values),
    stopStrings: values.stop || [],
    overflow: values.overflow,
    cache: values.cache,
  };
}
