/**
 * Graders for reinforcement fine-tuning: the graders of OpenAI's API that run no code
 * (https://platform.openai.com/docs/guides/graders). In their texts, `{{item.NAME}}` and `{{sample.output_text}}` are
 * replaced by values; other expressions are not supported.
 */
import type { Message, Words } from "../data/examples.ts";
import { DataError } from "../errors.ts";
import type { Reward, Sample } from "../finetune/rewards.ts";

/** A metric for the similarity of two texts. */
export type Similarity = "fuzzy_match" | "bleu" | "gleu" | `rouge_${1 | 2 | 3 | 4 | 5 | "l"}`;

export type Grader =
  | {
    readonly type: "string_check";
    readonly name: string;
    readonly input: string;
    readonly reference: string;
    readonly operation: "eq" | "ne" | "like" | "ilike";
  }
  | {
    readonly type: "text_similarity";
    readonly name: string;
    readonly input: string;
    readonly reference: string;
    readonly evaluation_metric: Similarity;
  }
  | {
    readonly type: "score_model";
    readonly name: string;
    /** The reward model's id and its path. */ readonly model: string;
    readonly path?: string;
    readonly input: Words;
    /** The range to which scores are clipped. */ readonly range?: readonly [number, number];
  };

/** A variable of a template, such as `{{ item.answer }}`. */
const VARIABLE = /\{\{\s*([^{}]*?)\s*\}\}/g;

/**
 * Describes what is wrong with a template; undefined if it is valid.
 *
 * @param template a text with the variables `item.NAME` (`item.NAME.INNER` for inner objects) and `sample.output_text`
 */
export function templateFault(template: string): string | undefined {
  for (const [whole, name] of template.matchAll(VARIABLE)) {
    if (!/^(sample\.output_text|item(\.[\w-]+)+)$/.test(name)) {
      return `${
        whole.slice(0, 80)
      }: expected {{item.NAME}} or {{sample.output_text}}; other expressions are not supported`;
    }
  }
}

/**
 * Maximum number of characters of a template after substitution. A template may contain a long value thousands of
 * times.
 */
const MOST_SUBSTITUTED = 2 ** 20;

/**
 * Replaces a template's variables by their values. Strings are inserted unchanged, other values as JSON, missing values
 * as the empty string.
 *
 * @throws {DataError} if the result has more than 1,048,576 characters
 */
export function substitute(template: string, sample: Pick<Sample, "completion" | "more">): string {
  let length = template.length;
  return template.replace(VARIABLE, (_, name: string) => {
    const value = valueOf(name, sample);
    if ((length += value.length) <= MOST_SUBSTITUTED) return value;
    throw new DataError(
      `A grader's text has more than ${MOST_SUBSTITUTED} characters after a row's values were inserted`,
    );
  });
}
function valueOf(name: string, { completion, more }: Pick<Sample, "completion" | "more">): string {
  if (name === "sample.output_text") return completion;
  let value: unknown = more?.item;
  for (const part of name.split(".").slice(1)) {
    const inner = typeof value === "object" && value !== null && Object.hasOwn(value, part);
    value = inner ? (value as Record<string, unknown>)[part] : undefined;
  }
  return value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value);
}

/** Returns a sample's score, 0 to 1, by a grader that needs no model. */
export function grade(grader: Exclude<Grader, { type: "score_model" }>, sample: Sample): number {
  const input = substitute(grader.input, sample), reference = substitute(grader.reference, sample);
  if (grader.type === "text_similarity") return similarity(grader.evaluation_metric, input, reference);
  const { operation } = grader;
  if (operation === "eq") return input === reference ? 1 : 0;
  if (operation === "ne") return input === reference ? 0 : 1;
  const fold = (text: string) => operation === "ilike" ? text.toLowerCase() : text;
  return fold(input).includes(fold(reference)) ? 1 : 0;
}

/** Returns the text or the messages that a `score_model` grader's reward model scores. */
export function graded(input: Words, sample: Sample): Words {
  if (typeof input === "string") return substitute(input, sample);
  return input.map((message): Message => ({ ...message, content: substitute(message.content, sample) }));
}

/** Maximum number of characters of a text that are compared. The time grows with the product of both lengths. */
const MOST = 4096;

/**
 * Computes the similarity of a text to a reference, 0 to 1.
 *
 * - `fuzzy_match`: the ratio of matching letters, 2 · LCS / (lengths of both), where LCS is the length of the longest
 *   common subsequence, as in rapidfuzz's `ratio`
 * - `rouge_N`, `rouge_l`: F1 of common N-grams of words, or of the longest common subsequence of words (Lin 2004)
 * - `bleu`: N-grams of up to 4 words with the brevity penalty (Papineni et al. 2002); 1 is added to the counts of
 *   N-grams with N > 1 (Lin and Och 2004), because most short texts would score 0 otherwise
 * - `gleu`: the smaller of precision and recall of all N-grams up to 4 (Wu et al. 2016)
 */
export function similarity(metric: Similarity, text: string, reference: string): number {
  const [a, b] = [text, reference].map((text) => text.slice(0, MOST));
  if (metric === "fuzzy_match") return ratio(commonSubsequence([...a], [...b]), [...a].length, [...b].length);
  const [x, y] = [a, b].map((text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);
  if (metric === "rouge_l") return ratio(commonSubsequence(x, y), x.length, y.length);
  if (metric === "bleu") return bleu(x, y);
  if (metric === "gleu") {
    const sums = [0, 0, 0];
    for (let n = 1; n <= 4; n++) overlap(x, y, n).forEach((count, i) => sums[i] += count);
    const [common, own, other] = sums;
    return own + other === 0 ? 1 : Math.min(common / Math.max(1, own), common / Math.max(1, other));
  }
  const [common, own, other] = overlap(x, y, Number(metric.slice(6)));
  return ratio(common, own, other);
}

/** F1; 1 if both are empty. */
const ratio = (common: number, a: number, b: number): number => a + b === 0 ? 1 : 2 * common / (a + b);

function bleu(text: readonly string[], reference: readonly string[]): number {
  if (text.length === 0) return reference.length === 0 ? 1 : 0;
  let logs = 0;
  for (let n = 1; n <= 4; n++) {
    const [common, own] = overlap(text, reference, n), add = n > 1 ? 1 : 0;
    if (common + add === 0) return 0;
    logs += Math.log((common + add) / (own + add)) / 4;
  }
  return Math.exp(logs + Math.min(0, 1 - reference.length / text.length));
}

/**
 * Number of common N-grams, and of N-grams in each list. An N-gram that one list has i times and the other j times
 * counts as min(i, j) common ones.
 */
function overlap(a: readonly string[], b: readonly string[], n: number): [common: number, a: number, b: number] {
  const grams = (words: readonly string[]) =>
    Array.from({ length: Math.max(0, words.length - n + 1) }, (_, i) => words.slice(i, i + n).join(" "));
  const [x, y] = [grams(a), grams(b)], left = new Map<string, number>();
  for (const gram of y) left.set(gram, (left.get(gram) ?? 0) + 1);
  let common = 0;
  for (const gram of x) {
    const count = left.get(gram) ?? 0;
    if (count > 0) common++, left.set(gram, count - 1);
  }
  return [common, x.length, y.length];
}

function commonSubsequence(a: readonly string[], b: readonly string[]): number {
  let row = new Int32Array(b.length + 1);
  for (const one of a) {
    const next = new Int32Array(b.length + 1);
    b.forEach((other, j) => next[j + 1] = one === other ? row[j] + 1 : Math.max(row[j + 1], next[j]));
    row = next;
  }
  return row[b.length];
}

/** Turns a grader that needs no model into a reward function. */
export function graderReward(grader: Exclude<Grader, { type: "score_model" }>): Reward {
  return {
    ...{ name: grader.name, weight: 1 },
    async score(samples, { signal } = {}) {
      const scores = new Float64Array(samples.length);
      for (const [i, sample] of samples.entries()) {
        signal?.throwIfAborted();
        scores[i] = grade(grader, sample);
        if (i % 64 === 63) await new Promise((resolve) => setTimeout(resolve, 0));
      }
      return scores;
    },
    [Symbol.dispose]() {},
  };
}
