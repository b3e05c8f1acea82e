/**
 * The rules of sampling, one entry each: {@linkcode samplingRules} is all that has to grow with a new rule, beside its option in
 * {@linkcode SamplingOptions}. Validation, the order of application, the choice between the device and the host, and the
 * command line's flags are made from it.
 */
import {
  addBias,
  divide,
  keepMinP,
  keepTopK,
  keepTopP,
  penalizeFrequency,
  penalizePresence,
  penalizeRepetition,
} from "./logits_processors.ts";

/** How one token is chosen; what is left out changes nothing. */
export interface SamplingOptions {
  /** What is added to the logits of tokens, by their ids; −Infinity bans one. */
  readonly logitBias?: Readonly<Record<number, number>>;
  /** Makes the tokens that are there, in the prompt too, less likely: above 1. Default 1. */
  readonly repetitionPenalty?: number;
  /** What a token's logit loses once it has been generated, as OpenAI's API: −2 to 2 there. Default 0. */
  readonly presencePenalty?: number;
  /** What a token's logit loses for each time that it has been generated, as OpenAI's API: −2 to 2 there. Default 0. */
  readonly frequencyPenalty?: number;
  /** Divides the logits: 1 is the model's own distribution, less is more cautious, 0 takes the likeliest. Default 1. */
  readonly temperature?: number;
  /** Sample from the k most likely tokens (ties with the k-th included). Default 0: from all. */
  readonly topK?: number;
  /** Sample from the fewest tokens that together have this probability, from 0 to 1 (nucleus sampling). Default 1: from all. */
  readonly topP?: number;
  /** Sample from the tokens that have at least this share, from 0 to 1, of the likeliest one's probability. Default 0: from all. */
  readonly minP?: number;
}

/** A sequence's tokens, as the penalties look at them. */
export interface History {
  /** All of them, the prompt's too. */
  readonly tokens: readonly number[];
  /** How many of them are the prompt's. */
  readonly prompt: number;
}

/** The numbers that an option accepts, all of them finite. */
export interface NumberRange {
  readonly whole?: boolean;
  readonly min?: number;
  /** As `min`, but the bound itself is refused. */
  readonly above?: number;
  readonly max?: number;
}

/** One rule of sampling: plain data, but for the function. */
export interface SamplingRule<V> {
  /** The value that changes nothing; undefined where only leaving the option out does. */
  readonly neutral?: V;
  /** For numbers. */
  readonly range?: NumberRange;
  /** Whether kernels/sample applies it too; any other rule makes the host read the logits and choose. */
  readonly onDevice?: boolean;
  /** The line that `--help` has for its flag; without one there is no flag. */
  readonly help?: string;
  /** Changes the scores of one sequence, in place. */
  apply(scores: Float64Array, value: V, history: History): void;
}

/** In the order in which they are applied, transformers': first what shifts scores, then what excludes tokens. */
export const samplingRules: {
  readonly [Option in keyof SamplingOptions]-?: SamplingRule<NonNullable<SamplingOptions[Option]>>;
} = {
  logitBias: { apply: addBias },
  repetitionPenalty: {
    neutral: 1,
    range: { above: 0 },
    help: "above 1, what is in the text becomes less likely",
    apply: (scores, penalty, { tokens }) => penalizeRepetition(scores, tokens, penalty),
  },
  presencePenalty: {
    neutral: 0,
    range: {},
    help: "what a token's logit loses once it was drawn",
    apply: (scores, penalty, { tokens, prompt }) => penalizePresence(scores, tokens.slice(prompt), penalty),
  },
  frequencyPenalty: {
    neutral: 0,
    range: {},
    help: "what a token's logit loses each time that it was drawn",
    apply: (scores, penalty, { tokens, prompt }) => penalizeFrequency(scores, tokens.slice(prompt), penalty),
  },
  temperature: {
    neutral: 1,
    range: { min: 0 },
    onDevice: true,
    help: "1 is the model's own distribution, less is more cautious, 0 takes the likeliest",
    apply: divide,
  },
  topK: {
    neutral: 0,
    range: { whole: true, min: 0 },
    onDevice: true,
    help: "sample from the k most likely tokens; 0 is all of them",
    apply: keepTopK,
  },
  topP: {
    neutral: 1,
    range: { min: 0, max: 1 },
    help: "sample from the fewest tokens that together have this probability",
    apply: keepTopP,
  },
  minP: {
    neutral: 0,
    range: { min: 0, max: 1 },
    help: "sample from the tokens with at least this share of the likeliest one's probability",
    apply: keepMinP,
  },
};

const inOrder = Object.entries(samplingRules) as [keyof SamplingOptions, SamplingRule<never>][];

/** The rules that the options ask for, in their order. */
function asked(options: SamplingOptions): typeof inOrder {
  return inOrder.filter(([option, { neutral }]) => options[option] !== undefined && options[option] !== neutral);
}

/** Whether the options ask for a rule that the device does not apply. */
export function needsHost(options: SamplingOptions): boolean {
  return asked(options).some(([, { onDevice }]) => !onDevice);
}

/** Applies the rules that the options ask for. */
export function processLogits(scores: Float64Array, options: SamplingOptions, history: History): void {
  for (const [option, rule] of asked(options)) {
    if (option === "temperature" && isGreedy(options.temperature!)) return; // nothing below changes which token is likeliest
    rule.apply(scores, options[option] as never, history);
  }
}

/** Whether the temperature counts as 0: logits divided by a smaller one than this leave the range of f32. */
export const isGreedy = (temperature: number): boolean => temperature < 1e-30;
