/** What kernels/choose reads about each row: a record of f32 numbers with its sampling rules, and integers of state. */
import { type SamplingOptions, samplingRules } from "./rules.ts";

const rules = Object.keys(samplingRules).filter((option) => option !== "logitBias") as Exclude<
  keyof SamplingOptions,
  "logitBias"
>[];

/**
 * Fields of a record, in order. `table` is the number of the row's tables, −1 without bias and penalties. `likely` is
 * the number of pairs to write to the kernel's `likely`: 1 for the chosen token plus the number of most likely tokens,
 * or 0 for none. The numbers of the rules follow.
 */
export const recordFields = ["table", "likely", ...rules] as const;
export type RecordField = typeof recordFields[number];

/**
 * Ids that report a failure: DAMAGED if the logits contain NaN or their maximum is infinite, BANNED if bias and
 * penalties leave no token.
 */
export const DAMAGED = -1, BANNED = -2;
/** In a row's state, in place of a given token: draw by noise, or from the row's own stream. */
export const BY_NOISE = -1, BY_STREAM = -2;

/** Whether the options need tables: for a bias, or for a penalty whose value has an effect. */
export const needsTables = (options: SamplingOptions): boolean =>
  Object.entries(samplingRules).some(([option, { tables, neutral }]) =>
    tables && (options[option as keyof SamplingOptions] ?? neutral) !== neutral
  );

/** Whether the temperature counts as 0: logits divided by less than 1e-30 could leave the range of f32. */
const isGreedy = ({ temperature = 1 }: SamplingOptions): boolean => temperature < 1e-30;

/**
 * Makes a row's record.
 *
 * @param table the number of the row's tables
 * @param likely for how many of the most likely tokens to return log-probabilities, besides the chosen token; undefined
 *   for no log-probabilities, not even the chosen token's
 */
export function recordOf(options: SamplingOptions, table = -1, likely?: number): number[] {
  const numbers = rules.map((rule) => clamped(options[rule] ?? samplingRules[rule].neutral!));
  if (isGreedy(options)) numbers[rules.indexOf("temperature")] = 0;
  return [needsTables(options) ? table : -1, likely === undefined ? 0 : likely + 1, ...numbers];
}

/**
 * Makes a row's tables, (2, V): the bias of each logit, and how often each token has been generated, plus 0.5 if it is
 * in the prompt.
 *
 * @param tokens the tokens of the row so far, of which the first `prompt` are its prompt
 */
export function tablesOf(
  { logitBias = {} }: SamplingOptions,
  { tokens, prompt }: { readonly tokens: readonly number[]; readonly prompt: number },
  vocabSize: number,
): Float64Array {
  const tables = new Float64Array(2 * vocabSize), seen = tables.subarray(vocabSize);
  for (const [id, bias] of Object.entries(logitBias)) tables[Number(id)] = bias === -Infinity ? bias : clamped(bias);
  for (const id of tokens.slice(0, prompt)) seen[id] = 0.5;
  for (const id of tokens.slice(prompt)) seen[id]++;
  return tables;
}

/** Clamps a number to far inside the range of f32, so that results computed from it stay in that range. */
const clamped = (value: number) => Math.min(Math.max(value, -1e30), 1e30);
