/**
 * What stands between a model's logits and the choice of a token: each function changes the scores of one sequence, in
 * place, as the class of that name in transformers' `generation/logits_process.py`.
 *
 * The host computes them, in f64 from the model's f32, on rows that have been read back: a row is a vector, work for
 * microseconds at 65 entries and for some milliseconds at GPT-2's 50,257. A score of −∞ stands for a token that cannot be drawn.
 */

/** How one token is chosen; what is left out changes nothing. */
export interface SamplingOptions {
  /** Divides the logits: 1 is the model's own distribution, less is more cautious, 0 takes the likeliest. Default 1. */
  readonly temperature?: number;
  /** Only the likeliest so many are drawn from, and those as likely as the last of them. Default: all. */
  readonly topK?: number;
  /** Only the fewest that together have this probability, from 0 to 1 (nucleus sampling). Default 1: all. */
  readonly topP?: number;
  /** Only those that have at least this share, from 0 to 1, of the likeliest one's probability. Default 0: all. */
  readonly minP?: number;
  /** Makes the tokens that are there, in the prompt too, less likely: above 1. Default 1. */
  readonly repetitionPenalty?: number;
  /** What a token's logit loses for each time that it has been generated, as OpenAI's API: −2 to 2 there. Default 0. */
  readonly frequencyPenalty?: number;
  /** What a token's logit loses once it has been generated, as OpenAI's API: −2 to 2 there. Default 0. */
  readonly presencePenalty?: number;
  /** What is added to the logits of tokens, by their ids; −Infinity bans one. */
  readonly logitBias?: Readonly<Record<number, number>>;
}

/** A sequence's tokens, as the penalties look at them. */
export interface History {
  /** All of them, the prompt's too. */
  readonly tokens: readonly number[];
  /** How many are the prompt's. */
  readonly prompt: number;
}

/** All that the options ask for, in transformers' order: what shifts single scores first, then what leaves tokens out. */
export function processLogits(scores: Float64Array, options: SamplingOptions, history: History): void {
  const { logitBias, repetitionPenalty = 1, frequencyPenalty = 0, presencePenalty = 0 } = options;
  const { temperature = 1, topK, topP = 1, minP = 0 } = options;
  if (logitBias) addBias(scores, logitBias);
  if (repetitionPenalty !== 1) penalizeRepetition(scores, history.tokens, repetitionPenalty);
  if (frequencyPenalty !== 0 || presencePenalty !== 0) {
    penalizeFrequency(scores, history.tokens.slice(history.prompt), frequencyPenalty, presencePenalty);
  }
  if (isGreedy(temperature)) return; // the likeliest is the same whatever follows
  if (temperature !== 1) divide(scores, temperature);
  if (topK !== undefined) keepTopK(scores, topK);
  if (topP < 1) keepTopP(scores, topP);
  if (minP > 0) keepMinP(scores, minP);
}

/** Whether the temperature is 0, as a device has it, in f32. */
export const isGreedy = (temperature: number): boolean => Math.fround(temperature) === 0;

/** scores[id] += bias, as `SequenceBiasLogitsProcessor` with sequences of one token. */
export function addBias(scores: Float64Array, logitBias: Readonly<Record<number, number>>): void {
  for (const [id, bias] of Object.entries(logitBias)) scores[Number(id)] += bias;
}

/**
 * Divides the positive scores of `tokens` by the penalty and multiplies the negative ones, each once: CTRL (Keskar et al. 2019,
 * arXiv:1909.05858), `RepetitionPenaltyLogitsProcessor`.
 */
export function penalizeRepetition(scores: Float64Array, tokens: readonly number[], penalty: number): void {
  for (const id of new Set(tokens)) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
}

/**
 * μ[j] − c[j] · frequency − (c[j] > 0) · presence, where c[j] is how often token j has been generated: the formula in the
 * reference of OpenAI's API. The prompt is not counted.
 */
export function penalizeFrequency(
  scores: Float64Array,
  generated: readonly number[],
  frequency: number,
  presence: number,
): void {
  for (const id of new Set(generated)) scores[id] -= presence;
  for (const id of generated) scores[id] -= frequency;
}

/** `TemperatureLogitsWarper`. */
export function divide(scores: Float64Array, temperature: number): void {
  for (let i = 0; i < scores.length; i++) scores[i] /= temperature;
}

/** −∞ for all below the k-th greatest: `TopKLogitsWarper`. */
export function keepTopK(scores: Float64Array, k: number): void {
  if (k >= scores.length) return;
  // Of k groups each has an element that is its greatest, so the k-th greatest of all is not below the least of those.
  const greatest = new Float64Array(k).fill(-Infinity);
  for (let i = 0; i < scores.length; i++) greatest[i % k] = Math.max(greatest[i % k], scores[i]);
  const least = sortedFrom(scores, greatest.reduce((a, b) => Math.min(a, b))).at(-k)!;
  for (let i = 0; i < scores.length; i++) if (scores[i] < least) scores[i] = -Infinity;
}

/**
 * −∞ for the least likely whose probabilities together are at most 1 − p, so that the likeliest with p are left, one at least
 * (Holtzman et al. 2019, arXiv:1904.09751): `TopPLogitsWarper`. Of equal ones, those with greater ids stay.
 */
export function keepTopP(scores: Float64Array, p: number): void {
  // Those below a share of (1 − p) / n each are not more than 1 − p together.
  const log = logSumExp(scores), sure = Math.min(Math.log((1 - p) / scores.length) + log, maximum(scores));
  let below = 0, gone = 0;
  for (let i = 0; i < scores.length; i++) if (scores[i] < sure) below += Math.exp(scores[i] - log);
  const ascending = sortedFrom(scores, sure);
  for (; gone < ascending.length - 1; gone++) {
    below += Math.exp(ascending[gone] - log);
    if (below > 1 - p) break;
  }
  const least = ascending[gone];
  let equal = ascending.lastIndexOf(least) - gone + 1;
  for (let i = scores.length - 1; i >= 0; i--) {
    if (scores[i] < least || (scores[i] === least && equal-- <= 0)) scores[i] = -Infinity;
  }
}

/** The scores from `least` on, in ascending order: where they are few, that costs much less than to sort them all. */
function sortedFrom(scores: Float64Array, least: number): Float64Array {
  const some: number[] = [];
  for (let i = 0; i < scores.length; i++) if (scores[i] >= least) some.push(scores[i]);
  return Float64Array.from(some).sort();
}

/** −∞ for all whose probability is less than `share` of the greatest (Nguyen et al. 2024, arXiv:2407.01082): `MinPLogitsWarper`. */
export function keepMinP(scores: Float64Array, share: number): void {
  const greatest = maximum(scores);
  for (let i = 0; i < scores.length; i++) if (Math.exp(scores[i] - greatest) < share) scores[i] = -Infinity;
}

/** The greatest score, or NaN where there is one. */
export function maximum(scores: ArrayLike<number>): number {
  let greatest = -Infinity;
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] > greatest || Number.isNaN(scores[i])) greatest = scores[i]; // NaN wins, to be seen
  }
  return greatest;
}

/** log Σ exp(scores): what a logit loses to become a log-probability. */
export function logSumExp(scores: ArrayLike<number>): number {
  const greatest = maximum(scores);
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += Math.exp(scores[i] - greatest);
  return greatest + Math.log(sum);
}
