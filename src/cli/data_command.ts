/** `deno task data`: a file's first rows as the model will see them, and what there is in all. */
import { BUILT_IN_CHATS } from "../data/built_in_chats.ts";
import { ChatTemplate, chatTokenizer } from "../data/chat_template.ts";
import { type Example, type Kind, readExamples, type Words } from "../data/examples.ts";
import { endOfText, tokenizeExample, type TokenizeOptions } from "../data/tokenize_example.ts";
import { labelCount } from "../data/token_rows.ts";
import { ConfigError, DataError } from "../errors.ts";
import { type HeadExample, type HeadKind, inputsOf } from "../finetune/inputs.ts";
import { exists, readBytes } from "../files/files.ts";
import { Breather } from "../loop/breather.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { command } from "./command.ts";
import { DataSummary, type Part, showPart } from "./data_report.ts";
import { bool, choice, int, text, type Values } from "./flags.ts";
import { count, type Progress } from "./progress.ts";
import { encodeOptions, PRETRAINED, reportDownload, tokenizerFlags } from "./shared_flags.ts";

/** What each task can be tuned on. */
const TASKS: Readonly<Record<string, readonly Kind[]>> = {
  any: ["text", "completion", "preference", "label", "choice"],
  sft: ["text", "completion"],
  classify: ["label"],
  entail: ["label"],
  similar: ["label"],
  choose: ["choice"],
};

/** How a file's rows become tokens: `data` and `finetune` have these flags in common. */
export const rowFlags = {
  columns: text("", "names of the file's columns where they differ from the usual: text=sentence,label=gold"),
  max_length: int(0, "the most tokens of a row; 0 is the model's block size", { min: 0 }),
  truncation: choice(["keep_start", "keep_end"], "which end of a longer row stays: keep_start or keep_end"),
  template: text(
    "",
    `how conversations are written: ${
      Object.keys(BUILT_IN_CHATS).join(", ")
    }, or a file in Jinja; else as the model's files say`,
  ),
  completion_only_loss: bool(true, "of prompts with completions, whether only the completions are learned"),
  assistant_only_loss: bool(false, "of conversations, whether only what the assistant says is learned"),
};

export const dataFlags = {
  task: choice(
    ["any", "sft", "classify", "entail", "similar", "choose"],
    "what the rows are for: any, or a task of finetune",
  ),
  init_from: text("", `the model to be tuned: ${PRETRAINED}`),
  tokenizer: text("", `instead of the model's own, or without a model (gpt2 then): ${tokenizerFlags.tokenizer.help}`),
  special_tokens: choice(
    ["allow", "refuse", "text"],
    "what <|endoftext|> and its like in plain texts are: allow: special tokens; refuse; text: ordinary letters",
  ),
  ...rowFlags,
  num_rows: int(3, "how many rows are shown token by token", { min: 0 }),
};

export const data = command({
  name: "data",
  flags: dataFlags,
  words: { takes: "one file", example: ["FILE"] },
  help: {
    does:
      "Shows the first rows of a file to tune on as the model will see them, token by token, with what is learned marked;\n" +
      "then how many rows and tokens there are, and how long the rows are.",
    usage: "FILE",
    notes:
      "FILE is .jsonl, .json, .csv or .parquet, with the columns text; messages; prompt and completion; chosen and\n" +
      "rejected; text and label; or context, choices and label.\n\n",
  },
  async run({ words: [path], values, progress, interruption }) {
    const { tokenizer: own, blockSize } = await describe(values, progress);
    const tokenizer = withInputTokens(await chatting(own, values.template), values.task);
    const maxLength = values.max_length || blockSize, columns = parseColumns(values.columns);
    using template = ChatTemplate.of(tokenizer, { name: values.template || undefined });
    const options = rowOptions(values, { tokenizer, template, maxLength: maxLength || undefined });
    const signal = interruption(() => progress.line("Stopping …"));
    const colours = progress.terminal && !Deno.noColor, summary = new DataSummary(maxLength), breather = new Breather();
    for await (const example of readExamples(path, { kinds: TASKS[values.task], columns })) {
      const parts = await partsOf(example, values.task, options);
      if (summary.rows < values.num_rows) {
        progress.line(`${example.where}: ${titleOf(example)}`);
        for (const part of parts) progress.line(showPart(part, tokenizer, colours));
        progress.line("");
      }
      summary.add(example, parts);
      progress.status(() => `${count(summary.rows)} rows`);
      await breather.breathe();
      if (signal.aborted) break;
    }
    progress.end();
    if (signal.aborted) progress.line(`Of the rows until here:`);
    for (const line of summary.lines()) progress.line(line);
    if (summary.plainTexts > 0 && endOfText(tokenizer) === null) {
      progress.line(
        "The tokenizer has no token that ends a text: none is added, and the model will not learn where to end.",
      );
    }
    signal.throwIfAborted();
    if (summary.labels === 0 && summary.trained > 0) throw new DataError(`${path}: no row has a token that is learned`);
  },
});

/** What the flags say of how rows become tokens. */
export function rowOptions(
  values: Values<typeof rowFlags> & { readonly special_tokens: string },
  { tokenizer, template, maxLength }: Pick<TokenizeOptions, "tokenizer" | "template" | "maxLength">,
): TokenizeOptions {
  const { truncation, completion_only_loss: completionOnly, assistant_only_loss: assistantOnly } = values;
  const special = encodeOptions(values.special_tokens);
  return { tokenizer, template, maxLength, truncation, completionOnly, assistantOnly, special };
}

/**
 * The tokenizer with a chat template and the tokens that it is written with; itself where no template is named.
 *
 * @throws {ConfigError} when there is neither a built-in template nor a file of that name
 */
export async function chatting(tokenizer: Tokenizer, template: string): Promise<Tokenizer> {
  if (!template) return tokenizer;
  if (Object.hasOwn(BUILT_IN_CHATS, template)) return chatTokenizer(tokenizer, template);
  if (await exists(template)) {
    return chatTokenizer(tokenizer, new TextDecoder().decode(await readBytes(template, { limit: 2 ** 22 })));
  }
  const names = Object.keys(BUILT_IN_CHATS).join(", ");
  throw new ConfigError(`--template=${template}: there is no such file; expected ${names}, or a file in Jinja`);
}

/** The tokenizer, and the model's block size where there is a model; else 0. */
async function describe(
  { init_from, tokenizer }: { init_from: string; tokenizer: string },
  progress: Progress,
): Promise<{ tokenizer: Tokenizer; blockSize: number }> {
  if (!init_from) return { tokenizer: await loadTokenizer(tokenizer || "gpt2"), blockSize: 0 };
  const { describePretrained } = await import("../pretrained/load.ts");
  return describePretrained(init_from, { tokenizer: tokenizer || undefined, onProgress: reportDownload(progress) });
}

/** @throws {ConfigError} when they are not pairs of names */
export function parseColumns(text: string): Record<string, string> {
  const pairs = text.split(",").filter(Boolean).map((pair) => pair.split("="));
  const wrong = pairs.find((pair) => pair.length !== 2 || pair.includes(""));
  if (wrong) throw new ConfigError(`--columns=${text}: expected usual=file's, such as text=sentence,label=gold`);
  return Object.fromEntries(pairs);
}

/** What an example is to the model: a row of tokens, or several. */
async function partsOf(example: Example, task: string, options: TokenizeOptions): Promise<Part[]> {
  if (example.kind === "label" || example.kind === "choice") return sequencesOf(example, task, options);
  const part = async (name: string, example: Parameters<typeof tokenizeExample>[0]): Promise<Part> => {
    const row = await tokenizeExample(example, options);
    return { name, ...row, labels: labelCount(row) };
  };
  if (example.kind !== "preference") return [await part("", example)];
  const { where, chosen, rejected, tools, variables, prompt = sharedTurns(chosen, rejected) } = example;
  const answer = (name: string, words: Words) => {
    const completion = example.prompt === undefined ? words.slice(prompt.length) as Words : words;
    return part(name, { kind: "completion", where, prompt, completion, tools, variables });
  };
  return prompt.length === 0 && typeof prompt !== "string" // nothing is common to them
    ? [
      await part("chosen", { kind: "text", where, text: chosen, tools, variables }),
      await part("rejected", { kind: "text", where, text: rejected, tools, variables }),
    ]
    : [await answer("chosen", chosen), await answer("rejected", rejected)];
}

/** The turns that two conversations begin with, where no prompt stands beside them; of texts none. */
function sharedTurns(chosen: Words, rejected: Words): Words {
  if (typeof chosen === "string" || typeof rejected === "string") return "";
  const most = Math.min(chosen.length, rejected.length) - 1; // an answer is left of each
  const differs = chosen.findIndex((turn, i) => i >= most || JSON.stringify(turn) !== JSON.stringify(rejected[i]));
  return chosen.slice(0, differs);
}

/** GPT-1's tokens, for the tasks that need them: a model that is tuned to them gets rows for them. */
const GPT1_TOKENS = ["_start_", "_delimiter_", "_classify_"];

/** @returns the tokenizer with what a task's rows need besides texts */
function withInputTokens(tokenizer: Tokenizer, task: string): Tokenizer {
  return task === "entail" || task === "similar" ? tokenizer.withSpecialTokens(GPT1_TOKENS) : tokenizer;
}

/** The sequences that a head sees of a row. */
function sequencesOf(example: HeadExample, task: string, options: TokenizeOptions): Part[] {
  const { tokenizer, maxLength = Infinity, truncation, special } = options;
  const [start, delimiter, extract] = GPT1_TOKENS.map((token) => tokenizer.specialTokens?.get(token) ?? -1);
  const tokens = task === "entail" || task === "similar" ? { start, delimiter, extract } : undefined;
  const kind = example.kind === "choice" ? "choose" : tokens ? task as HeadKind : "classify";
  const how = { kind, tokenizer, tokens, truncation, special } as const;
  const whole = inputsOf(example, { ...how, maxLength: Infinity }).sequences;
  return inputsOf(example, { ...how, maxLength }).sequences.map((ids, i) => ({
    name: example.kind === "choice" ? `${i}${i === example.label ? ", right" : ""}` : "",
    ids,
    learned: new Uint8Array(ids.length),
    fullLength: whole[i].length,
    merged: false,
  }));
}

function titleOf(example: Example): string {
  switch (example.kind) {
    case "text":
      return typeof example.text === "string" ? "a text" : "a conversation";
    case "completion":
      return "a prompt and its completion";
    case "preference":
      return "two answers, of which one is preferred";
    case "label":
      return `a text with the label ${JSON.stringify(example.label)}`;
    case "choice":
      return `a choice of ${example.choices.length}`;
  }
}
