/**
 * Access to the values of a row as texts, conversations, labels or lists of choices, with checks and error messages.
 */
import { DataError, editDistance } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { shown } from "../files/shown.ts";
import type { Label, Message, TemplateExtras, Words } from "./examples.ts";
import type { Row } from "./rows.ts";

/** The usual name of a column, followed by alternative names. */
export type Names = readonly string[];

/** Columns whose values are parsed as JSON if they are texts. In a CSV file, all values are texts. */
const JSON_COLUMNS = new Set([
  "messages",
  "conversations",
  "choices",
  "endings",
  "completions",
  "labels",
  "tools",
  "chat_template_kwargs",
]);

/**
 * Common roles. A role that nearly matches one of them is taken for a misspelling; any other role is passed to the
 * template.
 */
const ROLES = ["system", "user", "assistant", "tool", "developer", "function"];

/** Roles of the ShareGPT format, whose messages have `from` and `value` instead of `role` and `content`. */
const SPEAKERS: Readonly<Record<string, string>> = { human: "user", gpt: "assistant" };

/** The maximum depth of nested lists and objects in a message. */
const DEEPEST = 100;

/**
 * The values of a row by the usual names of their columns. Each method checks the value and throws a DataError if it is
 * not valid.
 */
export class Cells {
  readonly where: string;

  constructor(readonly row: Row, readonly renamed: Readonly<Record<string, string>> = {}) {
    this.where = row.where;
  }

  /** Whether the row has one of these columns, with a value other than null. */
  has(names: Names): boolean {
    return (this.row.columns[this.#nameOf(names)] ?? null) !== null;
  }

  text(names: Names): string {
    const [name, value] = this.#value(names);
    if (typeof value !== "string") throw this.#wrong(name, "a text", value);
    return value;
  }

  texts(names: Names): string[] {
    const [name, value] = this.#value(names);
    if (!Array.isArray(value) || value.length < 2) throw this.#wrong(name, "a list of two texts or more", value);
    value.forEach((text, i) => {
      if (typeof text !== "string") throw this.#wrong(`${name}[${i}]`, "a text", text);
    });
    return value;
  }

  /** A text, or the turns of a conversation. */
  words(names: Names, usual = names[0]): Words {
    const [name, value] = this.#value(names);
    if (typeof value === "string" && (name === usual || (this.renamed[usual] ?? usual) === name)) return value;
    if (!Array.isArray(value)) throw this.#wrong(name, "a text, or a list of messages", value);
    if (value.length === 0) throw new DataError(`${this.where}: ${name} has no messages`);
    return value.map((message, i) => this.#message(message, `${name}[${i}]`));
  }

  /** A list of at least two texts or conversations. */
  wordsList(names: Names): Words[] {
    const [name, value] = this.#value(names);
    if (!Array.isArray(value) || value.length < 2) throw this.#wrong(name, "a list of two answers or more", value);
    return value.map((words, i) => {
      const where = `${name}[${i}]`;
      if (typeof words === "string") return words;
      if (!Array.isArray(words) || words.length === 0) throw this.#wrong(where, "a text, or a list of messages", words);
      return words.map((message, j) => this.#message(message, `${where}[${j}]`));
    });
  }

  /** @throws {DataError} when some of the values are texts and some are conversations */
  checkAlike(words: Readonly<Record<string, Words>>): void {
    const [[first, one], ...others] = Object.entries(words),
      what = (words: Words) => typeof words === "string" ? "a text" : "a list of messages";
    for (const [name, other] of others) {
      if (what(one) === what(other)) continue;
      throw new DataError(`${this.where}: ${first} is ${what(one)}, and ${name} is ${what(other)}`);
    }
  }

  /** The values that a template gets besides the messages; empty for a plain text, because no template renders it. */
  extras(words: Words): TemplateExtras {
    if (typeof words === "string") return {};
    const extras: { -readonly [K in keyof TemplateExtras]: TemplateExtras[K] } = {};
    if (this.has(["tools"])) {
      const [name, tools] = this.#value(["tools"]);
      if (!Array.isArray(tools)) throw this.#wrong(name, "a list", tools);
      extras.tools = this.#withoutNulls(tools, name) as unknown[];
    }
    if (this.has(["chat_template_kwargs"])) {
      const [name, more] = this.#value(["chat_template_kwargs"]);
      if (!isObject(more)) throw this.#wrong(name, "an object", more);
      extras.variables = this.#withoutNulls(more, name) as Record<string, unknown>;
    }
    return extras;
  }

  label(names: Names): Label {
    const [name, value] = this.#value(names), isOne = (v: unknown) => typeof v === "string" || Number.isFinite(v);
    if (typeof value === "boolean" || isOne(value)) return numeric(value) as Label;
    if (Array.isArray(value) && value.every(isOne)) return value.map(numeric) as Label;
    throw this.#wrong(name, "a class's name or number, or a list of these", value);
  }

  number(names: Names): number {
    const [name, value] = this.#value(names), number = numeric(value);
    if (Number.isFinite(number)) return Number(number);
    throw this.#wrong(name, "a number", value);
  }

  /** All columns except the columns with these usual names. */
  others(names: readonly string[]): Record<string, unknown> {
    const known = names.map((name) => this.#nameOf([name]));
    return Object.fromEntries(Object.entries(this.row.columns).filter(([name]) => !known.includes(name)));
  }

  /** The value of a column that contains the index of one of the choices. */
  index(names: Names, choices: readonly string[]): number {
    const [name, value] = this.#value(names), index = numeric(value);
    if (Number.isInteger(index) && Number(index) >= 0 && Number(index) < choices.length) return Number(index);
    throw this.#wrong(name, `the number of a choice, from 0 to ${choices.length - 1}`, value);
  }

  #message(value: unknown, name: string): Message {
    if (!isObject(value)) throw this.#wrong(name, 'a message, {"role": "…", "content": "…"}', value);
    const { from, value: said, ...rest } = value;
    const older = from !== undefined && rest.role === undefined; // ShareGPT's format: the content is in `value`
    const role = older && typeof from === "string" ? SPEAKERS[from] ?? from : older ? from : rest.role;
    const given = older && rest.content === undefined ? said : rest.content;
    const content = (given ?? null) === null && Array.isArray(rest.tool_calls) ? "" : given;
    if (typeof role !== "string" || role === "") {
      throw this.#wrong(`${name}.${older ? "from" : "role"}`, "a role", role);
    }
    if (typeof content !== "string") throw this.#wrong(`${name}.${older ? "value" : "content"}`, "a text", content);
    const meant = ROLES.includes(role)
      ? undefined
      : ROLES.find((known) => editDistance(role.toLowerCase(), known) <= 2);
    if (meant) {
      throw new DataError(
        `${this.where}: ${name} has the role ${JSON.stringify(shown(role))}: the nearest is ${meant}`,
      );
    }
    return { ...this.#withoutNulls(older ? rest : value, name) as object, role, content };
  }

  /**
   * Removes fields with the value null. In a Parquet file, every row has all fields that occur in any row, and a field
   * that a row lacks is null.
   */
  #withoutNulls(value: unknown, name: string, depth = 0): unknown {
    if (depth > DEEPEST) throw new DataError(`${this.where}: ${name} is nested deeper than ${DEEPEST} levels`);
    if (Array.isArray(value)) return value.map((part) => this.#withoutNulls(part, name, depth + 1));
    if (!isObject(value)) return value;
    const there = Object.entries(value).filter(([, part]) => (part ?? null) !== null);
    return Object.fromEntries(there.map(([key, part]) => [key, this.#withoutNulls(part, name, depth + 1)]));
  }

  #nameOf(names: Names): string {
    const known = names.map((name) => this.renamed[name] ?? name);
    return known.find((name) => Object.hasOwn(this.row.columns, name)) ?? known[0];
  }

  #value(names: Names): [name: string, value: unknown] {
    const name = this.#nameOf(names), value = this.row.columns[name];
    if (typeof value !== "string" || !names.some((n) => (this.renamed[n] ?? n) === name && JSON_COLUMNS.has(n))) {
      return [name, value];
    }
    try {
      return [name, JSON.parse(value)];
    } catch (error) {
      throw new DataError(`${this.where}: ${name} is not JSON: ${shown((error as Error).message)}`);
    }
  }

  #wrong(name: string, expected: string, value: unknown): DataError {
    return new DataError(`${this.where}: ${name} is ${described(value)}; expected ${expected}`);
  }
}

/**
 * Converts a text that represents a number to the number, because all cells of a CSV file are texts. Returns other
 * values unchanged.
 */
function numeric(value: unknown): unknown {
  return typeof value === "string" && /^-?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?$/i.test(value) ? Number(value) : value;
}

function described(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (isObject(value)) return "an object";
  return typeof value === "string" ? `the text ${JSON.stringify(shown(value))}` : `the ${typeof value} ${value}`;
}
