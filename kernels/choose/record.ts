/** How rows tell kernels/choose what they ask for: numbers in a record each, f32, and three integers of state. */
import { type SamplingOptions, samplingRules } from "./rules.ts";

const rules = Object.keys(samplingRules).filter((option) => option !== "logitBias") as Exclude<
  keyof SamplingOptions,
  "logitBias"
>[];

/**
 * What a record holds, in order: the number of the row's tables, −1 where it asks for neither bias nor penalties; for how many
 * of the likeliest tokens to give log-probabilities, and one more, 0 for none at all; then the rules' numbers.
 */
export const recordFields = ["table", "likely", ...rules] as const;
export type RecordField = typeof recordFields[number];

/** Instead of a token: the row's logits have NaN or their greatest is infinite; bias and penalties have left no token. */
export const DAMAGED = -1, BANNED = -2;
/** In a row's state, instead of a token that is given: it is drawn by noise, or by the row's own stream. */
export const BY_NOISE = -1, BY_STREAM = -2;

/** Whether the options need tables: for a bias or a penalty that changes something. */
export const needsTables = (options: SamplingOptions): boolean =>
  Object.entries(samplingRules).some(([option, { tables, neutral }]) =>
    tables && (options[option as keyof SamplingOptions] ?? neutral) !== neutral
  );

/** Whether the temperature counts as 0: logits divided by a smaller one than this leave the range of f32. */
const isGreedy = ({ temperature = 1 }: SamplingOptions): boolean => temperature < 1e-30;

/**
 * A row's record.
 *
 * @param table the number of its tables
 * @param likely for how many of the likeliest tokens to give log-probabilities; undefined: not even for the chosen one
 */
export function recordOf(options: SamplingOptions, table = -1, likely?: number): number[] {
  const numbers = rules.map((rule) => clamped(options[rule] ?? samplingRules[rule].neutral!));
  if (isGreedy(options)) numbers[rules.indexOf("temperature")] = 0;
  return [needsTables(options) ? table : -1, likely === undefined ? 0 : likely + 1, ...numbers];
}

/**
 * A row's tables, (2, V): what is added to each logit, and how often each token has been generated, with a half more where the
 * prompt has it.
 *
 * @param tokens all of the row's, of which `prompt` are the prompt's
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

/** Far inside the range of f32, so that what is computed with it is, too. */
const clamped = (value: number) => Math.min(Math.max(value, -1e30), 1e30);
