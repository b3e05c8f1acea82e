/**
 * Examples for fine-tuning, read from files with rows. The formats are as in TRL
 * (https://huggingface.co/docs/trl/dataset_formats): a text, a conversation, a prompt with its completion, a
 * preference, a prompt alone. Four more are a ranking, a text with a label, a pair of texts with a label, and a
 * multiple choice. The columns of a file determine its format.
 */
import { ConfigError, DataError, editDistance, nearest } from "../errors.ts";
import { shown } from "../files/shown.ts";
import { Cells, type Names } from "./cells.ts";
import { readRows, type Row } from "./rows.ts";

/** A message of a conversation. */
export interface Message {
  /** The speaker: system, user, assistant, tool, or another role that the chat template supports. */ readonly role:
    string;
  /** Text of the message. */ readonly content: string;
  /** Other fields that the template reads, such as `tool_calls`. */ readonly [more: string]: unknown;
}

/** A plain text, or the messages of a conversation. */
export type Words = string | readonly Message[];

/** One class or several, each by its name or number; for a regression, a number. */
export type Label = string | number | boolean | readonly (string | number)[];

/** The values that a row passes to the chat template besides the messages. */
export interface TemplateExtras {
  /** Functions that the assistant may call, from the column `tools`. */
  readonly tools?: readonly unknown[];
  /** Other variables of the template, from the column `chat_template_kwargs`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** A checked row. `where` is its place in the file for messages, such as "chats.jsonl, line 12". */
export type Example =
  & { readonly where: string }
  & (
    | { readonly kind: "text"; readonly text: Words } & TemplateExtras
    | { readonly kind: "completion"; readonly prompt: Words; readonly completion: Words } & TemplateExtras
    | (
      & {
        readonly kind: "preference";
        readonly prompt?: Words;
        readonly chosen: Words;
        readonly rejected: Words;
        /** How much higher a reward model should score `chosen` than `rejected`. */ readonly margin?: number;
      }
      & TemplateExtras
    )
    | (
      & {
        readonly kind: "prompt";
        readonly prompt: Words;
        /** The row's other columns, if {@linkcode ExampleOptions.more} is true. */
        readonly more?: Readonly<Record<string, unknown>>;
      }
      & TemplateExtras
    )
    | (
      & {
        readonly kind: "ranking";
        readonly prompt: Words;
        /** Two or more completions, best first. */ readonly completions: readonly Words[];
      }
      & TemplateExtras
    )
    | { readonly kind: "label"; readonly text: string; readonly pair?: string; readonly label: Label }
    | {
      readonly kind: "choice";
      readonly context: string;
      readonly choices: readonly string[];
      /** Index of the right choice. */ readonly label: number;
    }
  );

/** The format of an example. */
export type Kind = Example["kind"];

/** Options of {@linkcode readExamples}. */
export interface ExampleOptions {
  /** Formats that the caller accepts. The file's columns decide which of them is used. */ readonly kinds:
    readonly Kind[];
  /** Maps usual names of columns to the names in the file, if they differ: `{ text: "sentence", label: "gold" }`. */
  readonly columns?: Readonly<Record<string, string>>;
  /** Whether an example of the kind prompt includes the row's other columns, such as a right answer. Default: false. */
  readonly more?: boolean;
}

/**
 * The columns of each format, each with its alternative names. Formats with more columns come first, because a row has
 * the first format that its columns match.
 */
const KINDS: Readonly<Record<Kind, { readonly needs: readonly Names[]; readonly takes?: readonly Names[] }>> = {
  choice: { needs: [["context", "ctx"], ["choices", "endings"], ["label"]] },
  preference: { needs: [["chosen"], ["rejected"]], takes: [["prompt"], ["margin"]] },
  ranking: { needs: [["prompt"], ["completions"]] },
  completion: { needs: [["prompt"], ["completion"]] },
  label: {
    needs: [["text", "sentence", "sentence1", "premise"], ["label", "labels"]],
    takes: [["pair", "text_pair", "sentence2", "hypothesis"]],
  },
  text: { needs: [["text", "messages", "conversations"]] },
  prompt: { needs: [["prompt"]] },
};

/** Columns that are passed to the chat template. */
const EXTRAS = ["tools", "chat_template_kwargs"];

/**
 * Reads the rows of a file as examples, one at a time, and checks each.
 *
 * @param path file of JSON lines, a JSON array, comma-separated values or Parquet, according to the ending of its name
 * @returns the examples, all in the format of the first row
 * @throws {DataError} when the file cannot be read, a column is missing, or a value has the wrong type. The message
 * names the file, the line and, for a missing column, the nearest name
 * @throws {ConfigError} when `options.columns` renames a column that no format has
 * @example
 * ```ts ignore
 * for await (const example of readExamples("chats.jsonl", { kinds: ["text", "completion"] })) console.log(example.where);
 * ```
 */
export async function* readExamples(path: string, options: ExampleOptions): AsyncGenerator<Example> {
  let kind: Kind | undefined;
  const names = Object.values(KINDS).flatMap(({ needs, takes = [] }) => [...needs, ...takes].flat());
  for (const usual of Object.keys(options.columns ?? {})) {
    if ([...names, ...EXTRAS].includes(usual)) continue;
    const near = nearest(usual, names);
    throw new ConfigError(
      `columns: ${shown(usual)} is not the usual name of a column${near ? ` (the nearest is ${near})` : ""}; ` +
        "expected usual=file's, such as text=sentence",
    );
  }
  const columns = options.more ? undefined : new Set([...names, ...EXTRAS, ...Object.values(options.columns ?? {})]);
  for await (const row of readRows(path, { columns })) {
    kind ??= kindOf(row, options);
    const cells = new Cells(row, options.columns), example = BUILD[kind](cells);
    yield example.kind === "prompt" && options.more
      ? { ...example, more: cells.others(["prompt", ...EXTRAS]) }
      : example;
  }
}

/** The format of a row. @throws {DataError} when its columns fit none of the formats */
function kindOf({ where, columns, names }: Row, { kinds, columns: renamed = {} }: ExampleOptions): Kind {
  const there = names ?? Object.keys(columns),
    has = (names: Names) => names.some((name) => there.includes(renamed[name] ?? name));
  const ordered = (Object.keys(KINDS) as Kind[]).filter((kind) => kinds.includes(kind));
  const found = ordered.find((kind) => KINDS[kind].needs.every(has));
  if (found) return found;
  // The message names the format that matches best, and its missing columns. A column with a similar name counts half.
  const near = (names: Names) => nearestOf(names.map((name) => renamed[name] ?? name), there);
  const score = (kind: Kind) =>
    KINDS[kind].needs.reduce((sum, names) => sum + (has(names) ? 2 : near(names) ? 1 : -1), 0);
  const best = ordered.reduce((a, b) => score(b) > score(a) ? b : a),
    missing = KINDS[best].needs.filter((n) => !has(n));
  const hints = missing.map((names) => {
    const name = near(names), [usual] = names;
    return `no column ${renamed[usual] ?? usual}${name ? ` (the nearest is ${shown(name)})` : ""}`;
  });
  const expected = ordered.map((kind) => KINDS[kind].needs.map((names) => names[0]).join(", "));
  throw new DataError(
    `${where}: ${hints.join(", ")}; expected the columns ${expected.map((names) => `(${names})`).join(" or ")}, ` +
      `and found ${there.length > 0 ? shown(there.join(", ")) : "none"}`,
  );
}

/** The column whose name is most likely a misspelling of one of `names`. */
function nearestOf(names: Names, there: readonly string[]): string | undefined {
  const found = names.map((name) => nearest(name, there)).filter((name) => name !== undefined);
  const distance = (column: string) => Math.min(...names.map((name) => editDistance(column, name)));
  return found.sort((a, b) => distance(a) - distance(b))[0];
}

const BUILD: Readonly<Record<Kind, (cells: Cells) => Example>> = {
  text: (cells) => {
    const text = cells.words(KINDS.text.needs[0], "text");
    return { kind: "text", where: cells.where, text, ...cells.extras(text) };
  },
  completion: (cells) => {
    const prompt = cells.words(["prompt"]), completion = cells.words(["completion"]);
    cells.checkAlike({ prompt, completion });
    return { kind: "completion", where: cells.where, prompt, completion, ...cells.extras(prompt) };
  },
  preference: (cells) => {
    const chosen = cells.words(["chosen"]), rejected = cells.words(["rejected"]);
    cells.checkAlike({ chosen, rejected });
    const given = cells.has(["prompt"]) ? cells.words(["prompt"]) : undefined;
    // If the answers are whole conversations, a prompt that is a text repeats their first message and is ignored.
    const prompt = typeof given === "string" && typeof chosen !== "string" ? undefined : given;
    if (prompt !== undefined) cells.checkAlike({ prompt, chosen });
    const margin = cells.has(["margin"]) ? { margin: cells.number(["margin"]) } : {};
    const answers = { ...(prompt !== undefined && { prompt }), chosen, rejected };
    return { kind: "preference", where: cells.where, ...answers, ...margin, ...cells.extras(chosen) };
  },
  ranking: (cells) => {
    const prompt = cells.words(["prompt"]), completions = cells.wordsList(["completions"]);
    for (const [i, answer] of completions.entries()) cells.checkAlike({ prompt, [`completions[${i}]`]: answer });
    return { kind: "ranking", where: cells.where, prompt, completions, ...cells.extras(prompt) };
  },
  prompt: (cells) => {
    const prompt = cells.words(["prompt"]);
    return { kind: "prompt", where: cells.where, prompt, ...cells.extras(prompt) };
  },
  label: (cells) => {
    const { needs: [texts, labels], takes: [pairs] = [[]] } = KINDS.label;
    const pair = cells.has(pairs) ? { pair: cells.text(pairs) } : {};
    return { kind: "label", where: cells.where, text: cells.text(texts), ...pair, label: cells.label(labels) };
  },
  choice: (cells) => {
    const [contexts, lists, labels] = KINDS.choice.needs, choices = cells.texts(lists);
    return {
      kind: "choice",
      where: cells.where,
      context: cells.text(contexts),
      choices,
      label: cells.index(labels, choices),
    };
  },
};
