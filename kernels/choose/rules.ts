/**
 * The sampling rules, one entry each in {@linkcode samplingRules}. Validation, the order of application, the fields of
 * a row's record, the reference of kernels/choose and the command line's flags are all derived from this table. A new
 * rule needs an entry here, an option in {@linkcode SamplingOptions}, and a line each in the WebAssembly and in the
 * shader.
 */
import type { FloatArray } from "../../src/kernel.ts";

/** How to choose one token. An option that is left out has no effect. */
export interface SamplingOptions {
  /** Numbers to add to the logits of tokens, by token id; −Infinity bans a token. */
  readonly logitBias?: Readonly<Record<number, number>>;
  /** Above 1, makes tokens that are already in the text, including the prompt, less likely. Default 1. */
  readonly repetitionPenalty?: number;
  /**
   * Subtracted from a token's logit if it has been generated, as in OpenAI's API, whose range is −2 to 2. Default 0.
   */
  readonly presencePenalty?: number;
  /**
   * Subtracted from a token's logit each time it has been generated, as in OpenAI's API, whose range is −2 to 2.
   * Default 0.
   */
  readonly frequencyPenalty?: number;
  /**
   * Divides the logits: 1 is the model's own distribution, less is more cautious, 0 takes the most likely token.
   * Default 1.
   */
  readonly temperature?: number;
  /** Sample from the k most likely tokens (ties with the k-th included). Default 0: all tokens. */
  readonly topK?: number;
  /**
   * Sample from the fewest tokens that together have this probability, from 0 to 1 (nucleus sampling). Default 1: all
   * tokens.
   */
  readonly topP?: number;
  /**
   * Sample from tokens with at least this share, from 0 to 1, of the most likely token's probability. Default 0: all
   * tokens.
   */
  readonly minP?: number;
}

/** The range of an option's numbers, which must be finite. */
export interface NumberRange {
  readonly whole?: boolean;
  readonly min?: number;
  /** Like `min`, but excludes the bound itself. */
  readonly above?: number;
  readonly max?: number;
}

/** Tables of a row that uses a bias or penalties, with V elements each. */
export interface RowTables {
  /** Number to add to each logit. */
  readonly bias: FloatArray;
  /** How often each token has been generated, plus 0.5 if it is in the prompt. */
  readonly seen: FloatArray;
}

/** A sampling rule: how one option, such as `topK`, changes the scores of the tokens. */
export interface SamplingRule {
  /** The value that has no effect; undefined if only leaving the option out has none. */
  readonly neutral?: number;
  /** Valid values, if the option is a number. */
  readonly range?: NumberRange;
  /** The line of `--help` for the rule's flag; undefined if there is no flag. */
  readonly help?: string;
  /** Whether the rule needs tables. */
  readonly tables?: boolean;
  /**
   * Changes the scores of one row in place, as does the class of transformers' `generation/logits_process.py` named
   * below.
   */
  apply(scores: Float64Array, value: number, tables?: RowTables): void;
}

/**
 * The rules in the order in which they are applied, as in transformers: first rules that shift scores, then rules that
 * exclude.
 */
export const samplingRules: { readonly [Option in keyof SamplingOptions]-?: SamplingRule } = {
  /** Adds the bias: `SequenceBiasLogitsProcessor`, with sequences of one token. */
  logitBias: {
    tables: true,
    apply: (scores, _, tables) => tables?.bias.forEach((bias, i) => scores[i] += bias),
  },
  /**
   * Divides positive scores of tokens in the text by the penalty, and multiplies negative ones by it (CTRL, Keskar et
   * al. 2019, arXiv:1909.05858): `RepetitionPenaltyLogitsProcessor`.
   */
  repetitionPenalty: {
    neutral: 1,
    range: { above: 0 },
    help: "above 1, tokens already in the text become less likely",
    tables: true,
    apply: (scores, penalty, tables) =>
      tables?.seen.forEach((seen, i) => {
        if (seen > 0) scores[i] = scores[i] < 0 ? scores[i] * penalty : scores[i] / penalty;
      }),
  },
  /**
   * Subtracts (c[j] > 0) · presence from the score of token j, which was generated c[j] times: a term of the formula in
   * the reference of OpenAI's API.
   */
  presencePenalty: {
    neutral: 0,
    range: {},
    help: "subtracted from a token's logit if it was generated before",
    tables: true,
    apply: (scores, presence, tables) => tables?.seen.forEach((seen, i) => scores[i] -= seen >= 1 ? presence : 0),
  },
  /** Subtracts c[j] · frequency: the other term of the formula. */
  frequencyPenalty: {
    neutral: 0,
    range: {},
    help: "subtracted from a token's logit for each time it was generated",
    tables: true,
    apply: (scores, frequency, tables) => tables?.seen.forEach((seen, i) => scores[i] -= Math.floor(seen) * frequency),
  },
  /** Divides by the temperature: `TemperatureLogitsWarper`. */
  temperature: {
    neutral: 1,
    range: { min: 0 },
    help: "1 is the model's own distribution, less is more cautious, 0 takes the most likely token",
    apply: (scores, temperature) => scores.forEach((score, i) => scores[i] = score / temperature),
  },
  /** −∞ for all scores below the k-th greatest: `TopKLogitsWarper`. */
  topK: {
    neutral: 0,
    range: { whole: true, min: 0 },
    help: "sample from the k most likely tokens; 0 for all tokens",
    apply(scores, k) {
      if (k >= scores.length) return;
      const least = scores.toSorted().at(-k)!;
      scores.forEach((score, i) => scores[i] = score < least ? -Infinity : score);
    },
  },
  /**
   * −∞ for the least likely tokens whose probabilities add up to at most 1 − p, but at least one token stays (Holtzman
   * et al. 2019, arXiv:1904.09751): `TopPLogitsWarper`. Among equal scores, the tokens with greater ids stay.
   */
  topP: {
    neutral: 1,
    range: { min: 0, max: 1 },
    help: "sample from the fewest tokens that together have this probability",
    apply(scores, p) {
      const greatest = maximum(scores), shares = Array.from(scores, (score) => Math.exp(score - greatest));
      const ascending = [...shares.keys()].sort((a, b) => scores[a] - scores[b] || a - b); // by id if −∞ − −∞ = NaN
      let left = (1 - p) * shares.reduce((a, b) => a + b);
      for (const i of ascending.slice(0, -1)) {
        if ((left -= shares[i]) < 0) break;
        scores[i] = -Infinity;
      }
    },
  },
  /**
   * −∞ for tokens below `share` of the greatest probability (Nguyen et al. 2024, arXiv:2407.01082): `MinPLogitsWarper`.
   */
  minP: {
    neutral: 0,
    range: { min: 0, max: 1 },
    help: "sample from the tokens with at least this share of the most likely token's probability",
    apply(scores, share) {
      const greatest = maximum(scores);
      scores.forEach((score, i) => scores[i] = Math.exp(score - greatest) < share ? -Infinity : score);
    },
  },
};

/** The greatest score, or NaN if any score is NaN. */
export const maximum = (scores: Float64Array): number => scores.reduce((a, b) => Math.max(a, b), -Infinity);
