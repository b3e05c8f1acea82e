/** What `deno task data` prints: rows token by token, and a summary of all rows with a histogram of their lengths. */
import type { Example } from "../data/examples.ts";
import type { TokenizedRow } from "../data/tokenize_example.ts";
import { shown } from "../files/shown.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { count } from "./progress.ts";

/** One text of an example as tokens. */
export interface Part extends TokenizedRow {
  /** The text's name if the example has several texts, such as "chosen"; else empty. */
  readonly name: string;
  /** The number of tokens with a loss; undefined if the loss is not on the tokens. */
  readonly labels?: number;
}

/** Tokens printed at each end of a long row. */
const SHOWN = 200;
const GREEN = "\x1b[32m", DIM = "\x1b[2m", PLAIN = "\x1b[0m";

/**
 * A text, token by token, with a bar between tokens. Tokens with a loss are green, or in brackets if `colours` is
 * false. Newlines are printed as `\n` and a line break. Other invisible characters are printed as their code points, so
 * that a file cannot send control sequences to the terminal.
 */
export function showPart(
  { name, ids, learned, labels, fullLength }: Part,
  tokenizer: Tokenizer,
  colours: boolean,
): string {
  const mark = (text: string, isLearned: boolean) => {
    if (!colours) return isLearned ? `[${text}]` : text;
    return isLearned ? `${GREEN}${text}${PLAIN}` : text;
  };
  const bar = colours ? `${DIM}|${PLAIN}` : "|";
  const some = (begin: number, end: number) => {
    let line = "";
    for (let i = begin; i < end; i++) {
      const isLearned = learned[i] === 1 && i > 0, text = visible(tokenizer.decode([ids[i]]));
      // Brackets already separate learned tokens from each other.
      if (i > begin && (colours || !(isLearned && learned[i - 1] === 1 && i > 1))) line += bar;
      line += mark(text, isLearned);
    }
    return line;
  };
  const { length } = ids, left = length - 2 * SHOWN;
  const text = left > 0
    ? `${some(0, SHOWN)} … ${count(left)} tokens … ${some(length - SHOWN, length)}`
    : some(0, length);
  const cut = fullLength > length ? `, cut from ${count(fullLength)}` : "";
  const of = labels === undefined ? "" : `, ${count(labels)} learned`;
  return `${name && `${name}: `}${count(length)} tokens${of}${cut}\n  ${text.replaceAll("\n", "\n  ")}`;
}

function visible(text: string): string {
  return text.replace(/\n|(?! )[\p{C}\p{Zl}\p{Zp}]/gu, (c) => {
    if (c === "\n") return "\\n\n";
    return c === "\t" ? "\\t" : c === "\r" ? "\\r" : `\\u{${c.codePointAt(0)!.toString(16)}}`;
  });
}

/** Counts the rows of a file. */
export class DataSummary {
  rows = 0;
  /** Rows with a loss on their tokens. */
  trained = 0;
  /** Rows that are plain texts, not conversations. */
  plainTexts = 0;
  tokens = 0;
  labels = 0;
  cut = 0;
  withoutLabels = 0;
  merged = 0;
  readonly #lengths: number[] = [];
  readonly #classes = new Map<string, number>();

  constructor(readonly maxLength: number) {}

  add(example: Example, parts: readonly Part[]): void {
    this.rows++;
    if (parts[0].labels !== undefined) {
      const labels = parts.reduce((sum, part) => sum + part.labels!, 0);
      this.trained++;
      this.labels += labels;
      this.withoutLabels += Number(labels === 0);
    }
    if (example.kind === "text" || example.kind === "completion") {
      this.plainTexts += Number(typeof (example.kind === "text" ? example.text : example.completion) === "string");
    }
    if (example.kind === "label" || example.kind === "choice") {
      for (const label of [example.label].flat()) {
        this.#classes.set(String(label), (this.#classes.get(String(label)) ?? 0) + 1);
      }
    }
    this.merged += Number(parts.some((part) => part.merged));
    const lengths = parts.map((part) => part.fullLength), length = Math.max(...lengths);
    this.tokens += lengths.reduce((sum, length) => sum + length, 0);
    this.cut += Number(this.maxLength > 0 && length > this.maxLength);
    this.#lengths.push(length);
  }

  lines(): string[] {
    if (this.rows === 0) return [];
    const share = (n: number, of: number) => `${(100 * n / of).toFixed(1)} %`;
    const learned = this.trained > 0 ? `, ${count(this.labels)} learned (${share(this.labels, this.tokens)})` : "";
    const lines = [["rows", count(this.rows)], ["tokens", count(this.tokens) + learned]];
    if (this.maxLength > 0) lines.push([`longer than ${this.maxLength}`, `${count(this.cut)} rows`]);
    if (this.withoutLabels > 0) {
      lines.push(["nothing learned", `${count(this.withoutLabels)} rows, which finetune skips`]);
    }
    if (this.merged > 0) {
      lines.push([
        "merged border",
        `${count(this.merged)} rows: one token spans the end of the prompt and the completion`,
      ]);
    }
    if (this.#classes.size > 0) lines.push(["labels", this.#classList()]);
    const lengths = this.#lengths.toSorted((a, b) => a - b),
      at = (share: number) => lengths[Math.max(0, Math.ceil(share * lengths.length) - 1)];
    const mean = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
    lines.push([
      "tokens in a row",
      `${at(0)} to ${at(1)}, mean ${mean.toFixed(1)}, median ${at(0.5)}, 95 % have at most ${at(0.95)}`,
    ]);
    const width = Math.max(...lines.map(([name]) => name.length)) + 2;
    return [...lines.map(([name, value]) => name.padEnd(width) + value), ...histogram(lengths)];
  }

  #classList(): string {
    const classes = [...this.#classes].sort(([, a], [, b]) => b - a), first = classes.slice(0, 20);
    const more = classes.length - first.length;
    const list = first.map(([label, n]) => `${shown(label)} ${count(n)}`).join(", ");
    return list + (more > 0 ? `, and ${more} more` : "");
  }
}

/** A histogram of the lengths, which must be sorted: the upper bounds of its bins are powers of two. */
function histogram(lengths: readonly number[]): string[] {
  const bins: [from: number, to: number, rows: number][] = [];
  for (let from = 0, to = 8, i = 0; i < lengths.length; from = to + 1, to *= 2) {
    const begin = i;
    while (i < lengths.length && lengths[i] <= to) i++;
    if (i > 0) bins.push([from, to, i - begin]);
  }
  const most = Math.max(...bins.map(([, , rows]) => rows)), width = `${bins.at(-1)![1]}`.length;
  return bins.map(([from, to, rows]) => {
    const bar = "#".repeat(Math.max(Number(rows > 0), Math.round(40 * rows / most)));
    return `  ${`${from}`.padStart(width)} to ${`${to}`.padStart(width)}  ${bar.padEnd(40)} ${count(rows)}`.trimEnd();
  });
}
