/** What `sample` can be told: nanoGPT's flags with sample.py's defaults, and ours, which change nothing by default. */
import { type Declaration, parse, type Request } from "./command.ts";
import { choice, float, int, text, toggle, type Values } from "./flags.ts";
import type { SequencesOptions } from "../generate/options.ts";
import { checkpointFlag, deviceFlags, PRETRAINED, torchFlags, weightsFlag } from "./shared_flags.ts";

export const sampleFlags = {
  init_from: text("resume", `resume: the run in out_dir; or ${PRETRAINED}`),
  out_dir: text("out", "the run folder to sample from"),
  ...checkpointFlag,
  tokenizer: text("", "instead of the model's own: gpt2, cl100k_base, o200k_base, or a folder; a ckpt.pt holds none"),
  start: text("\n", "the text to go on from; FILE:path reads it from a file"),
  num_samples: int(10, "samples to draw", { min: 1 }),
  max_new_tokens: int(500, "tokens in each", { min: 1 }),
  temperature: float(0.8, "1 is the model's own distribution, less is more cautious, 0 takes the likeliest", {
    min: 0,
  }),
  top_k: int(200, "only the most likely so many tokens are drawn", { min: 1 }),
  top_p: float(1, "only the likeliest that together have this probability are drawn", { min: 0, max: 1 }),
  min_p: float(0, "only tokens with at least this share of the likeliest one's probability", { min: 0, max: 1 }),
  repetition_penalty: float(1, "above 1, what is in the text becomes less likely", { min: 1e-6 }),
  frequency_penalty: float(0, "what a token's logit loses each time that it was drawn"),
  presence_penalty: float(0, "what a token's logit loses once it was drawn"),
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
    temperature: values.temperature,
    topK: values.top_k,
    topP: values.top_p,
    minP: values.min_p,
    repetitionPenalty: values.repetition_penalty,
    frequencyPenalty: values.frequency_penalty,
    presencePenalty: values.presence_penalty,
    stopStrings: values.stop || [],
    overflow: values.overflow,
  };
}
