/** What generation can be told, and what it refuses. */
import { ConfigError } from "../errors.ts";
import type { GPTConfig } from "../gpt.ts";
import type { SamplingOptions } from "./logits_processors.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { StoppingOptions } from "./stopping.ts";

export interface GenerateOptions extends SamplingOptions, StoppingOptions {
  /** How many tokens to add at most. Either this or `maxLength`. */
  readonly maxNewTokens?: number;
  /** How many tokens there are to be at most, the prompt's too. */
  readonly maxLength?: number;
  /** Default 1337. */
  readonly seed?: number;
  /** Draws the noise instead of one made from `seed`: for several samples, one after the other, as nanoGPT draws them. */
  readonly generator?: RandomGenerator;
  /** Ends the generation before the next token. */
  readonly signal?: AbortSignal;
  /**
   * When there are more tokens than the block size: `crop`, the default, shows the model the last ones for each token, as
   * nanoGPT, which costs a whole forward pass a token; `slide` begins anew with the later half of them each time that the
   * window is full, which costs one token's work again and shows the model between half the block size and all of it;
   * `refuse` throws before anything is generated.
   */
  readonly overflow?: "crop" | "slide" | "refuse";
}

export interface SequencesOptions extends GenerateOptions {
  /** How many sequences to draw, together; each of them reads the prompt. Default 1. */
  readonly numReturnSequences?: number;
  /** Whether to tell each token's log-probability. Default false. */
  readonly logprobs?: boolean;
  /** Of how many of the likeliest tokens to tell it besides. */
  readonly topLogprobs?: number;
}

interface Rule {
  readonly holds: (value: number) => boolean;
  readonly expected: string;
}

const isCount = (value: number, least: number) => Number.isSafeInteger(value) && value >= least;
const whole: Rule = { holds: (value) => isCount(value, 0), expected: "a whole number, 0 or more" };
const count: Rule = { holds: (value) => isCount(value, 1), expected: "a whole number above 0" };
const share: Rule = { holds: (value) => value >= 0 && value <= 1, expected: "a number from 0 to 1" };
const any: Rule = { holds: Number.isFinite, expected: "a number" };

const rules = {
  maxNewTokens: whole,
  maxLength: count,
  temperature: { holds: (value) => value >= 0 && value < Infinity, expected: "a number, 0 or more" },
  topK: count,
  topP: share,
  minP: share,
  repetitionPenalty: { holds: (value) => value > 0 && value < Infinity, expected: "a number above 0" },
  frequencyPenalty: any,
  presencePenalty: any,
  numReturnSequences: count,
  topLogprobs: whole,
  seed: { holds: Number.isSafeInteger, expected: "a whole number" },
} satisfies Partial<Record<keyof SequencesOptions, Rule>>;

/**
 * How many tokens to add at most.
 *
 * @throws {ConfigError} when an option is out of range or contradicts another, or the prompt is empty or not of the vocabulary
 */
export function checkGeneration(options: SequencesOptions, prompt: readonly number[], config: GPTConfig): number {
  const { vocabSize, blockSize } = config, { eosTokenId = [], logitBias = {}, topLogprobs = 0 } = options;
  for (const [name, { holds, expected }] of Object.entries<Rule>(rules)) {
    const value = options[name as keyof typeof rules];
    if (value !== undefined && !holds(value)) refuse(`${name} is ${value}; expected ${expected}`);
  }
  if (prompt.length === 0) refuse("the prompt is empty; the model needs a token to go on from");
  checkIds("the prompt has token", prompt, vocabSize);
  checkIds("eosTokenId is", typeof eosTokenId === "number" ? [eosTokenId] : eosTokenId, vocabSize);
  checkIds("logitBias has token", Object.keys(logitBias).map(Number), vocabSize);
  for (const [id, bias] of Object.entries(logitBias)) {
    if (!(bias < Infinity)) refuse(`logitBias of token ${id} is ${bias}; expected a number, or -Infinity`);
  }
  if (topLogprobs > vocabSize) refuse(`topLogprobs is ${topLogprobs}, and the vocabulary has ${vocabSize} tokens`);
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
