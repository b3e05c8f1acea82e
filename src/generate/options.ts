/** The options of generation, and what it refuses. */
import { ConfigError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";
import type { CacheType } from "../nn/cache.ts";
import { type NumberRange, type SamplingOptions, samplingRules } from "../../kernels/choose/rules.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { StoppingOptions } from "./stopping.ts";

/** How {@linkcode generate} chooses tokens, and where it stops. */
export interface GenerateOptions extends SamplingOptions, StoppingOptions {
  /** How many tokens to add at most. Either this or `maxLength`. */
  readonly maxNewTokens?: number;
  /** How many tokens there are to be at most, the prompt's too. */
  readonly maxLength?: number;
  /** Default 1337. */
  readonly seed?: number;
  /** Draws the noise instead of one made from `seed`: for several samples, one after the other, as nanoGPT draws them. */
  readonly generator?: RandomGenerator;
  /**
   * `multinomial`, the default, draws noise for every entry of the vocabulary in the order of `torch.multinomial`, as nanoGPT and
   * transformers; `philox` draws one number a token from a stream of the row's own, made of its seed and of the token's number:
   * other texts, at a fraction of the cost where many are written at once. Sequences of one prompt have seeds that follow `seed`.
   */
  readonly draws?: "multinomial" | "philox";
  /** Ends the generation before the next token. */
  readonly signal?: AbortSignal;
  /**
   * When there are more tokens than the block size: `crop`, the default, shows the model the last ones for each token, as
   * nanoGPT, which costs a whole forward pass a token; `slide` begins anew with the later half of them each time that the
   * window is full, which costs one token's work again and shows the model between half the block size and all of it;
   * `refuse` throws before anything is generated.
   */
  readonly overflow?: "crop" | "slide" | "refuse";
  /**
   * How keys and values of the tokens so far are stored: `f32`, the default, or `bf16`, rounded to the nearest, in half the
   * memory. With `crop`, tokens past the block size have no cache, and it makes no difference to them.
   */
  readonly cache?: CacheType;
}

/** How one of many texts is written, and what is told of its tokens. */
export interface RowOptions extends Omit<GenerateOptions, "cache"> {
  /** Whether to give each token's log-probability. Default false. */
  readonly logprobs?: boolean;
  /** For how many of the likeliest tokens to give it besides. */
  readonly topLogprobs?: number;
  /**
   * Log-probabilities of the prompt's tokens ({@linkcode Row.promptLogprobs}), and of how many of the likeliest beside each.
   * `maxNewTokens` may be 0 then. The prompt has to fit into the block size.
   */
  readonly promptLogprobs?: number;
  /** Of {@linkcode Rows}: a prompt goes on from what rows with an equal value have read, and from no others'. */
  readonly shares?: string;
  /** Of {@linkcode Rows} that have `tagged`: what passes are told of the row's tokens, such as its adapter. Default 0. */
  readonly tag?: number;
}

/** How {@linkcode generateSequences} does. */
export interface SequencesOptions
  extends Omit<RowOptions, "promptLogprobs" | "shares" | "tag">, Pick<GenerateOptions, "cache"> {
  /** How many sequences to draw, together, from each prompt. Default 1. */
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
 * How many tokens to add at most.
 *
 * @throws {ConfigError} when an option is out of range or contradicts another, or the prompt is empty or not of the vocabulary
 */
export function checkGeneration(options: AllOptions, prompt: readonly number[], config: GPTConfig): number {
  const { vocabSize, blockSize } = config, { eosTokenId = [], logitBias = {}, promptLogprobs } = options;
  for (const [name, range] of Object.entries(ranges)) {
    const value = options[name as keyof AllOptions];
    if (range && value !== undefined) checkRange(name, value, range);
  }
  if (prompt.length === 0) refuse("the prompt is empty; the model needs a token to go on from");
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
  if (draws === "philox" && generator) refuse("draws is philox, which takes a seed; a generator has no part in it");
  checkStopStrings(options);
  const added = checkLength(options, prompt.length), length = prompt.length + added;
  if (options.overflow === "refuse" && length > blockSize) {
    refuse(
      `the prompt has ${prompt.length} tokens; with ${added} more they don't fit into the block size of ${blockSize}`,
    );
  }
  return added;
}

function checkLength({ maxNewTokens, maxLength }: SequencesOptions, prompt: number): number {
  if (maxNewTokens !== undefined && maxLength !== undefined) {
    refuse("maxNewTokens and maxLength are both given; one is enough");
  }
  if (maxLength !== undefined && maxLength <= prompt) {
    refuse(
      `maxLength is ${maxLength}, and the prompt alone has ${prompt} tokens; it counts them too, maxNewTokens does not`,
    );
  }
  return maxNewTokens ??
    (maxLength === undefined ? refuse("maxNewTokens or maxLength is missing") : maxLength - prompt);
}

function checkStopStrings({ stopStrings = [], tokenizer }: SequencesOptions): void {
  const strings = typeof stopStrings === "string" ? [stopStrings] : stopStrings;
  if (strings.includes("")) refuse("a stop string is empty, and would end every sequence at once");
  if (strings.length > 0 && !tokenizer) refuse("stopStrings need the tokenizer, to see the text of the tokens");
}

function checkIds(what: string, ids: readonly number[], vocabSize: number): void {
  const stray = ids.find((id) => !isCount(id, 0) || id >= vocabSize);
  if (stray !== undefined) refuse(`${what} ${stray}, and the vocabulary ends at ${vocabSize - 1}`);
}

function refuse(what: string): never {
  throw new ConfigError(what);
}
