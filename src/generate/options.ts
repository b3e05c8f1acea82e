/** The options of generation, and their checks. */
import { ConfigError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";
import type { CacheType } from "../nn/cache.ts";
import { type NumberRange, type SamplingOptions, samplingRules } from "../../kernels/choose/rules.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { StoppingOptions } from "./stopping.ts";

/** How {@linkcode generate} chooses tokens, and where it stops. */
export interface GenerateOptions extends SamplingOptions, StoppingOptions {
  /** The most tokens to add to the prompt. Pass either this option or `maxLength`. */
  readonly maxNewTokens?: number;
  /** The most tokens of a sequence, including the prompt. */
  readonly maxLength?: number;
  /** Seed of the noise. Default 1337. */
  readonly seed?: number;
  /**
   * The generator of the noise, instead of one made from `seed`. Several calls can use one generator in turn, as in
   * nanoGPT.
   */
  readonly generator?: RandomGenerator;
  /**
   * How noise is drawn. `multinomial`, the default, draws noise for every entry of the vocabulary in the order of
   * `torch.multinomial`, like nanoGPT and transformers. `philox` draws one number for each token from a
   * stream that depends only on the seed and the token's position. The texts then differ from nanoGPT's, and generating
   * many texts at once costs much less. Sequences of one prompt use the seeds `seed`, `seed` + 1, ….
   */
  readonly draws?: "multinomial" | "philox";
  /** Ends the generation before the next token when it aborts. */
  readonly signal?: AbortSignal;
  /**
   * What happens when there are more tokens than the block size. `crop`, the default, runs the model on the last tokens
   * for each new token, as in nanoGPT; each token costs a forward pass over the whole block. `slide` drops the earlier
   * half of the tokens when the block is full; each token then costs a pass over one token, and the model sees between
   * half a block and a whole block. `refuse` throws before anything is generated.
   */
  readonly overflow?: "crop" | "slide" | "refuse";
  /**
   * How the keys and values of earlier tokens are stored: `f32`, the default, or `bf16`, which rounds them and takes
   * half the memory. With `crop`, the tokens after the block size use no cache.
   */
  readonly cache?: CacheType;
}

/** How one of many texts is generated, and which log-probabilities it yields. */
export interface RowOptions extends Omit<GenerateOptions, "cache"> {
  /** Whether to give each token's log-probability. Default false. */
  readonly logprobs?: boolean;
  /** The number of most likely tokens whose log-probabilities are yielded besides that of the chosen token. */
  readonly topLogprobs?: number;
  /**
   * Asks for the log-probabilities of the prompt's tokens ({@linkcode Row.promptLogprobs}). The number says how many of
   * the most likely tokens are given for each of them. `maxNewTokens` can then be 0. The prompt must fit into the block
   * size.
   */
  readonly promptLogprobs?: number;
  /** For {@linkcode Rows}: a prompt reuses keys and values only of rows with the same value of `shares`. */
  readonly shares?: string;
  /**
   * For {@linkcode Rows}: the number that `tagged` gets for the row's tokens, such as the number of an adapter. Default
   * 0.
   */
  readonly tag?: number;
}

/** How {@linkcode generateSequences} generates. */
export interface SequencesOptions
  extends Omit<RowOptions, "promptLogprobs" | "shares" | "tag">, Pick<GenerateOptions, "cache"> {
  /** How many sequences to generate from each prompt. Default 1. */
  readonly numReturnSequences?: number;
}

const isCount = (value: number, least: number) => Number.isSafeInteger(value) && value >= least;

type AllOptions = SequencesOptions & RowOptions;

const ranges: Readonly<Record<string, NumberRange | undefined>> = {
  maxNewTokens: { whole: true, min: 0 },
  maxLength: { whole: true, above: 0 },
  ...Object.fromEntries(Object.entries(samplingRules).map(([option, { range }]) => [option, range])),
  numReturnSequences: { whole: true, above: 0 },
  topLogprobs: { whole: true, min: 0 },
  promptLogprobs: { whole: true, min: 0 },
  seed: { whole: true },
} satisfies { [Option in keyof AllOptions]?: NumberRange };

function checkRange(name: string, value: unknown, { whole, min, above, max }: NumberRange): void {
  const isNumber = whole ? Number.isSafeInteger(value) : Number.isFinite(value), n = Number(value);
  if (isNumber && n >= (min ?? -Infinity) && n > (above ?? -Infinity) && n <= (max ?? Infinity)) return;
  const bounds = max !== undefined
    ? ` from ${min} to ${max}`
    : above !== undefined
    ? ` above ${above}`
    : min !== undefined
    ? `, ${min} or more`
    : "";
  refuse(`${name} is ${value}; expected a ${whole ? "whole " : ""}number${bounds}`);
}

/**
 * Checks options and prompt.
 *
 * @returns the most tokens to add
 * @throws {ConfigError} if an option is out of range or contradicts another, or the prompt is empty or has an id
 *   outside the vocabulary
 */
export function checkGeneration(options: AllOptions, prompt: readonly number[], config: GPTConfig): number {
  const { vocabSize, blockSize } = config, { eosTokenId = [], logitBias = {}, promptLogprobs } = options;
  for (const [name, range] of Object.entries(ranges)) {
    const value = options[name as keyof AllOptions];
    if (range && value !== undefined) checkRange(name, value, range);
  }
  if (prompt.length === 0) refuse("the prompt is empty; expected at least one token");
  checkIds("the prompt has token", prompt, vocabSize);
  checkIds("eosTokenId is", typeof eosTokenId === "number" ? [eosTokenId] : eosTokenId, vocabSize);
  checkIds("logitBias has token", Object.keys(logitBias).map(Number), vocabSize);
  for (const [id, bias] of Object.entries(logitBias)) {
    if (!(bias < Infinity)) refuse(`logitBias of token ${id} is ${bias}; expected a number, or -Infinity`);
  }
  for (const name of ["topLogprobs", "promptLogprobs"] as const) {
    if (options[name]! > vocabSize) refuse(`${name} is ${options[name]}, and the vocabulary has ${vocabSize} tokens`);
  }
  if (promptLogprobs !== undefined && prompt.length > blockSize) {
    refuse(`promptLogprobs: the prompt has ${prompt.length} tokens, and the block size is ${blockSize}`);
  }
  const { draws = "multinomial", generator, cache = "f32" } = options;
  if (cache !== "f32" && cache !== "bf16") refuse(`cache is ${cache}; expected f32 or bf16`);
  if (draws !== "multinomial" && draws !== "philox") refuse(`draws is ${draws}; expected multinomial or philox`);
  if (draws === "philox" && generator) refuse("draws is philox, which takes a seed and no generator");
  checkStopStrings(options);
  const added = checkLength(options, prompt.length), length = prompt.length + added;
  if (options.overflow === "refuse" && length > blockSize) {
    refuse(
      `the prompt has ${prompt.length} tokens; with ${added} more it does not fit into the block size of ${blockSize}`,
    );
  }
  return added;
}

function checkLength({ maxNewTokens, maxLength }: SequencesOptions, prompt: number): number {
  if (maxNewTokens !== undefined && maxLength !== undefined) {
    refuse("maxNewTokens and maxLength are both given; pass one of them");
  }
  if (maxLength !== undefined && maxLength <= prompt) {
    refuse(
      `maxLength is ${maxLength}, which includes the prompt's ${prompt} tokens; expected more, or maxNewTokens`,
    );
  }
  return maxNewTokens ??
    (maxLength === undefined ? refuse("maxNewTokens or maxLength is missing") : maxLength - prompt);
}

function checkStopStrings({ stopStrings = [], tokenizer }: SequencesOptions): void {
  const strings = typeof stopStrings === "string" ? [stopStrings] : stopStrings;
  if (strings.includes("")) refuse("a stop string is empty; expected at least one character");
  if (strings.length > 0 && !tokenizer) {
    refuse("stopStrings is given without the option tokenizer, which decodes the tokens");
  }
}

function checkIds(what: string, ids: readonly number[], vocabSize: number): void {
  const stray = ids.find((id) => !isCount(id, 0) || id >= vocabSize);
  if (stray !== undefined) refuse(`${what} ${stray}, and the vocabulary ends at ${vocabSize - 1}`);
}

function refuse(what: string): never {
  throw new ConfigError(what);
}
