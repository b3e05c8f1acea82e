/**
 * What stands between a model's logits and the choice of a token: each function changes the scores of one sequence, in
 * place, as the class of that name in transformers' `generation/logits_process.py`. sampling_rules.ts says which are applied.
 *
 * The host computes them, in f64 from the model's f32, on rows that have been read back: a row is a vector, work for
 * microseconds at 65 entries and for some milliseconds at GPT-2's 50,257. A score of −∞ stands for a token that cannot be drawn.
 */
import { DataError } from "../errors.ts";

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
 * μ[j] − (c[j] > 0) · presence, where c[j] is how often token j has been generated: the formula in the reference of OpenAI's
 * API. The prompt is not counted.
 */
export function penalizePresence(scores: Float64Array, generated: readonly number[], presence: number): void {
  for (const id of new Set(generated)) scores[id] -= presence;
}

/** μ[j] − c[j] · frequency: the other half of that formula. */
export function penalizeFrequency(scores: Float64Array, generated: readonly number[], frequency: number): void {
  for (const id of generated) scores[id] -= frequency;
}

/** `TemperatureLogitsWarper`. */
export function divide(scores: Float64Array, temperature: number): void {
  for (let i = 0; i < scores.length; i++) scores[i] /= temperature;
}

/** −∞ for all below the k-th greatest: `TopKLogitsWarper`. */
export function keepTopK(scores: Float64Array, k: number): void {
  if (k >= scores.length) return;
  // Lower bound for the k-th largest score: deal the row into k groups. The k group maxima are k scores, so the k-th largest
  // is at least the smallest of them. Only scores from there on need sorting.
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
  // Tokens with probability below (1 − p) / n can be dropped without sorting: n of them sum to at most 1 − p.
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

/** The scores from `least` on, in ascending order: sorting these few costs much less than sorting all. */
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

/** The error for logits that are not numbers, which damaged weights lead to; the device gives id −1 for them (kernels/sample). */
export function damagedLogits(value: number): DataError {
  return new DataError(`the model's logits reach ${value}: its weights are damaged`);
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
