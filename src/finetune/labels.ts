/** Interprets the labels of rows: as names of classes, one or several for each row, or as numbers to predict. */
import { numbered, type ProblemType } from "../checkpoint/hugging_face_heads.ts";
import type { Label } from "../data/examples.ts";
import { DataError } from "../errors.ts";

/** The meaning of a head's scores. */
export interface Labelling {
  /** One label, several labels, or regression. */ readonly problemType: ProblemType;
  /** The name of each score: transformers' `id2label`. */ readonly labels: readonly string[];
}

/** A label and its place in the data. */
export interface LabelAt {
  /** The place for messages, such as "reviews.jsonl, line 12". */ readonly where: string;
  /** The label. */ readonly label: Label;
}

type Sort = "text" | "number" | "list";
const sortOf = (label: Label): Sort =>
  typeof label === "number" ? "number" : typeof label === "object" ? "list" : "text";
const WORDS: Readonly<Record<Sort, string>> = { text: "a name", number: "a number", list: "a list" };

/**
 * Determines the meaning of labels. A name is a class; classes are sorted by code points. A whole number is a class
 * from 0, and any other number is a quantity to predict (regression). A list holds several classes, or for regression
 * several quantities.
 *
 * @param all the labels of the rows to train on
 * @param given the problem type, and the label names of an existing head, if they are known; `others` are the labels of
 *   the rows to evaluate on, which must have the same form
 * @throws {DataError} when labels are of mixed types, out of range, not finite, or more classes than the given names
 */
export function labellingOf(
  all: readonly LabelAt[],
  given: Partial<Labelling> & { readonly others?: readonly LabelAt[] } = {},
): Labelling {
  const [first] = all, { labels } = given;
  if (!first) throw new DataError("there is no row to learn labels from");
  const sort = sortOf(first.label);
  for (const { label, where } of [...all, ...given.others ?? []]) {
    if (sortOf(label) === sort) continue;
    throw new DataError(
      `labels are of mixed types: ${show(first.label)} in ${first.where} is ${WORDS[sort]}, and ${show(label)} in ` +
        `${where} is ${WORDS[sortOf(label)]}; all labels must have the same form`,
    );
  }
  const flat = all.flatMap(({ label, where }) =>
    [label].flat().map((one) => ({ one: one as string | number | boolean, where }))
  );
  const numeric = typeof flat[0]?.one === "number";
  for (const { one, where } of flat) {
    if ((typeof one === "number") !== numeric) throw new DataError(`${where}: labels must be all names or all numbers`);
    if (numeric && !Number.isFinite(one)) throw new DataError(`${where}: the label ${one} is not a finite number`);
  }
  const fractional = numeric && flat.some(({ one }) => !Number.isInteger(one));
  const problemType = given.problemType ??
    (fractional ? "regression" : sort === "list" ? "multi_label_classification" : "single_label_classification");
  if (problemType === "regression") return { problemType, labels: labels ?? numbered(widthOf(all)) };
  if (sort === "list" && problemType === "single_label_classification") {
    throw new DataError(
      `${first.where}: the label is a list; expected a single label, because the problem type is ${problemType}`,
    );
  }
  const found = numeric
    ? numbered(classesOf(flat))
    : [...new Set(flat.map(({ one }) => String(one)))].sort(byCodePoint);
  if (!labels) {
    if (found.length > 1 || problemType !== "single_label_classification") return { problemType, labels: found };
    throw new DataError(`all rows have the label ${show(first.label)}; expected two different labels or more`);
  }
  if (found.length > labels.length) {
    throw new DataError(
      `the data have ${found.length} classes, but the model has ${labels.length} labels: ${labels.join(", ")}`,
    );
  }
  return { problemType, labels };
}

/**
 * Converts a row's label to the numbers that the loss takes. For one label: the index of its class. For several labels:
 * 1 for each of the row's labels and 0 for all other labels. For regression: the quantities.
 *
 * @throws {DataError} when the label is not one of the labels; the message names the row
 */
export function labelNumbers(
  { label, where }: LabelAt,
  { problemType, labels }: Labelling,
): number | readonly number[] {
  if (problemType === "regression") {
    const numbers = [label].flat();
    if (numbers.length === labels.length && numbers.every(Number.isFinite)) return numbers as number[];
    throw new DataError(`${where}: the label is ${show(label)}; expected ${labels.length} numbers, as in other rows`);
  }
  const ids = [label].flat().map((one) => classOf(one as string | number | boolean, where, labels));
  if (problemType === "single_label_classification") {
    if (ids.length === 1) return ids[0];
    throw new DataError(`${where}: the label is ${show(label)}; expected one label`);
  }
  return labels.map((_, id) => ids.includes(id) ? 1 : 0);
}

function classOf(label: string | number | boolean, where: string, labels: readonly string[]): number {
  const id = typeof label === "number" ? label : labels.indexOf(String(label));
  if (Number.isInteger(id) && id >= 0 && id < labels.length) return id;
  const names = labels.slice(0, 10).map((name) => JSON.stringify(name)).join(", ");
  throw new DataError(
    typeof label === "number"
      ? `${where}: the label ${label} is outside the range of 0 to ${labels.length - 1}`
      : `${where}: the label ${show(label)} is not one of the ${labels.length} labels: ${names}${
        labels.length > 10 ? ", …" : ""
      }`,
  );
}

function widthOf([{ label }]: readonly LabelAt[]): number {
  return [label].flat().length;
}

function classesOf(flat: readonly { one: string | number | boolean; where: string }[]): number {
  let most = 0;
  for (const { one, where } of flat) {
    if (!Number.isInteger(one) || (one as number) < 0 || (one as number) >= 2 ** 20) {
      throw new DataError(
        `${where}: the label ${one} is not the number of a class; expected a whole number from 0 to ${2 ** 20 - 1}`,
      );
    }
    most = Math.max(most, one as number);
  }
  return most + 1;
}

const show = (label: Label): string => JSON.stringify(label);

function byCodePoint(a: string, b: string): number {
  const [left, right] = [[...a], [...b]], at = left.findIndex((letter, i) => letter !== right[i]);
  return at < 0
    ? left.length - right.length
    : at >= right.length
    ? 1
    : left[at].codePointAt(0)! - right[at].codePointAt(0)!;
}
