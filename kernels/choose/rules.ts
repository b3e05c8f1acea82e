/**
 * The rules of sampling, one entry each: validation, the order of application, what a row's record holds, the reference of
 * kernels/choose and the command line's flags are made from {@linkcode samplingRules}. A new rule grows this table, its option
 * in {@linkcode SamplingOptions}, and a line of the WebAssembly and of the shader.
 */
import type { FloatArray } from "../../src/kernel.ts";

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

/** The numbers that an option accepts, all of them finite. */
export interface NumberRange {
  readonly whole?: boolean;
  readonly min?: number;
  /** As `min`, but the bound itself is refused. */
  readonly above?: number;
  readonly max?: number;
}

/** What a row that asks for bias or penalties has in the tables, (V) each. */
export interface RowTables {
  /** What is added to each logit. */
  readonly bias: FloatArray;
  /** How often each token has been generated, and a half more where the prompt has it. */
  readonly seen: FloatArray;
}

/** One rule of sampling. */
export interface SamplingRule {
  /** The value that changes nothing; undefined where only leaving the option out does. */
  readonly neutral?: number;
  /** For numbers. */
  readonly range?: NumberRange;
  /** The line that `--help` has for its flag; without one there is no flag. */
  readonly help?: string;
  /** Whether the row needs tables. */
  readonly tables?: boolean;
  /** Changes the scores of one row, in place, as the class of transformers' `generation/logits_process.py` that it names. */
  apply(scores: Float64Array, value: number, tables?: RowTables): void;
}

/** In the order in which they are applied, transformers': first what shifts scores, then what excludes tokens. */
export const samplingRules: { readonly [Option in keyof SamplingOptions]-?: SamplingRule } = {
  /** `SequenceBiasLogitsProcessor`, with sequences of one token. */
  logitBias: {
    tables: true,
    apply: (scores, _, tables) => tables?.bias.forEach((bias, i) => scores[i] += bias),
  },
  /** Each token that is there once: CTRL (Keskar et al. 2019, arXiv:1909.05858), `RepetitionPenaltyLogitsProcessor`. */
  repetitionPenalty: {
    neutral: 1,
    range: { above: 0 },
    help: "above 1, what is in the text becomes less likely",
    tables: true,
    apply: (scores, penalty, tables) =>
      tables?.seen.forEach((seen, i) => {
        if (seen > 0) scores[i] = scores[i] < 0 ? scores[i] * penalty : scores[i] / penalty;
      }),
  },
  /** μ[j] − (c[j] > 0) · presence, c[j] times generated: the formula in the reference of OpenAI's API. */
  presencePenalty: {
    neutral: 0,
    range: {},
    help: "what a token's logit loses once it was drawn",
    tables: true,
    apply: (scores, presence, tables) => tables?.seen.forEach((seen, i) => scores[i] -= seen >= 1 ? presence : 0),
  },
  /** μ[j] − c[j] · frequency: the other half of that formula. */
  frequencyPenalty: {
    neutral: 0,
    range: {},
    help: "what a token's logit loses each time that it was drawn",
    tables: true,
    apply: (scores, frequency, tables) => tables?.seen.forEach((seen, i) => scores[i] -= Math.floor(seen) * frequency),
  },
  /** `TemperatureLogitsWarper`. */
  temperature: {
    neutral: 1,
    range: { min: 0 },
    help: "1 is the model's own distribution, less is more cautious, 0 takes the likeliest",
    apply: (scores, temperature) => scores.forEach((score, i) => scores[i] = score / temperature),
  },
  /** −∞ for all below the k-th greatest: `TopKLogitsWarper`. */
  topK: {
    neutral: 0,
    range: { whole: true, min: 0 },
    help: "sample from the k most likely tokens; 0 is all of them",
    apply(scores, k) {
      if (k >= scores.length) return;
      const least = scores.toSorted().at(-k)!;
      scores.forEach((score, i) => scores[i] = score < least ? -Infinity : score);
    },
  },
  /**
   * −∞ for the least likely whose probabilities together are at most 1 − p, so that the likeliest with p are left, one at least
   * (Holtzman et al. 2019, arXiv:1904.09751): `TopPLogitsWarper`. Of equal ones, those with greater ids stay.
   */
  topP: {
    neutral: 1,
    range: { min: 0, max: 1 },
    help: "sample from the fewest tokens that together have this probability",
    apply(scores, p) {
      const greatest = maximum(scores), shares = Array.from(scores, (score) => Math.exp(score - greatest));
      const ascending = [...shares.keys()].sort((a, b) => scores[a] - scores[b] || a - b); // −∞ − −∞ is no order: by id
      let left = (1 - p) * shares.reduce((a, b) => a + b);
      for (const i of ascending.slice(0, -1)) {
        if ((left -= shares[i]) < 0) break;
        scores[i] = -Infinity;
      }
    },
  },
  /** −∞ for all whose probability is less than `share` of the greatest (Nguyen et al. 2024, arXiv:2407.01082): `MinPLogitsWarper`. */
  minP: {
    neutral: 0,
    range: { min: 0, max: 1 },
    help: "sample from the tokens with at least this share of the likeliest one's probability",
    apply(scores, share) {
      const greatest = maximum(scores);
      scores.forEach((score, i) => scores[i] = Math.exp(score - greatest) < share ? -Infinity : score);
    },
  },
};

/** The greatest score, or NaN where there is one. */
export const maximum = (scores: Float64Array): number => scores.reduce((a, b) => Math.max(a, b), -Infinity);
