/** What `sample` can be told: nanoGPT's flags with sample.py's defaults, and ours, which change nothing by default. */
import { type Declaration, parse, type Request } from "./command.ts";
import { choice, type Flag, float, int, text, toggle, type Values } from "./flags.ts";
import type { SequencesOptions } from "../generate/options.ts";
import { type SamplingOptions, samplingRules } from "../generate/sampling_rules.ts";
import { checkpointFlag, deviceFlags, PRETRAINED, torchFlags, weightsFlag } from "./shared_flags.ts";

type Snake<Name extends string> = Name extends `${infer Letter}${infer Rest}`
  ? `${Letter extends Lowercase<Letter> ? Letter : `_${Lowercase<Letter>}`}${Snake<Rest>}`
  : Name;
/** The rules of sampling that are numbers. */
type RuleName = Exclude<keyof SamplingOptions, "logitBias">;

const ruleNames = (Object.keys(samplingRules) as (keyof SamplingOptions)[])
  .filter((option): option is RuleName => samplingRules[option].help !== undefined);
const flagOf = (option: string) => option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) as Snake<RuleName>;

/** A flag for each rule of sampling: its neutral value, unless sample.py has another default. */
function samplingFlags(defaults: Partial<Record<RuleName, number>>): Record<Snake<RuleName>, Flag<number>> {
  const flags = ruleNames.map((option) => {
    const { neutral, range: { whole, ...range } = {}, help = "" } = samplingRules[option];
    return [flagOf(option), (whole ? int : float)(defaults[option] ?? neutral!, help, range)];
  });
  return Object.fromEntries(flags);
}

export const sampleFlags = {
  init_from: text("resume", `resume: the run in out_dir; or ${PRETRAINED}`),
  out_dir: text("out", "the run folder to sample from"),
  ...checkpointFlag,
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
  seed: int(1337, "the same seed draws the same text", { min: 0, max: 2 ** 32 - 1 }),
  ...deviceFlags,
  ...weightsFlag,
  ...torchFlags,
  profile: toggle("print at the end how long each kernel took"),
};

export type SampleValues = Values<typeof sampleFlags>;

export const sampleDeclaration: Declaration<typeof sampleFlags> = {
  name: "sample",
  flags: sampleFlags,
  words: "config",
  help: { does: "Writes text with a trained model.", usage: "[config/NAME.ts]" },
};

/** @throws {ConfigError} */
export const parseSample = (args: string[]): Promise<Request<typeof sampleFlags>> => parse(sampleDeclaration, args);

/** What the flags mean to `generateSequences`. */
export function generationOptions(values: SampleValues): SequencesOptions {
  return {
    maxNewTokens: values.max_new_tokens,
    ...Object.fromEntries(ruleNames.map((option) => [option, values[flagOf(option)]])),
    stopStrings: values.stop || [],
    overflow: values.overflow,
  };
}
