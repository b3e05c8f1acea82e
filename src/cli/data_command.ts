/** `deno task data`: prints the first rows of a file as the model will see them, and a summary of all rows. */
import { ChatTemplate } from "../data/chat_template.ts";
import { type Example, type Kind, readExamples } from "../data/examples.ts";
import { endOfText, tokenizeExample, type TokenizeOptions } from "../data/tokenize_example.ts";
import { preferenceRows, tokenizePreference, tokenizePrompt, tokenizeRanking } from "../data/tokenize_preference.ts";
import { labelCount } from "../data/token_rows.ts";
import { DataError } from "../errors.ts";
import { type HeadExample, type HeadKind, INPUT_TOKENS, inputsOf, inputTokens } from "../finetune/inputs.ts";
import { Breather } from "../loop/breather.ts";
import { loadTokenizer } from "../tokenizer/load.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { command } from "./command.ts";
import { DataSummary, type Part, showPart } from "./data_report.ts";
import { choice, int, text } from "./flags.ts";
import { formOf, isHeadTask } from "./head_flags.ts";
import { count, type Progress } from "./progress.ts";
import type { RolloutTask } from "./rollout_flags.ts";
import { chatting, NO_END, parseColumns, rowFlags, rowOptions } from "./row_flags.ts";
import { PRETRAINED, reportDownload, tokenizerFlags } from "./shared_flags.ts";

/** The kinds of rows that each task can be trained on. */
const TASKS: Readonly<Record<"any" | "sft" | "dpo" | "reward" | RolloutTask | HeadKind, readonly Kind[]>> = {
  any: ["text", "completion", "preference", "ranking", "label", "choice", "prompt"],
  sft: ["text", "completion"],
  classify: ["label"],
  entail: ["label"],
  similar: ["label"],
  choose: ["choice"],
  dpo: ["preference"],
  reward: ["preference", "ranking"],
  grpo: ["prompt"],
  rloo: ["prompt"],
  ppo: ["prompt"],
};

export const dataFlags = {
  task: choice(
    Object.keys(TASKS) as (keyof typeof TASKS)[],
    "the task of finetune that the rows are for: sft, classify, entail, similar, choose, dpo, reward, grpo, rloo, ppo; or any",
  ),
  init_from: text("", `the model to fine-tune, whose tokenizer and block size are used: ${PRETRAINED}`),
  tokenizer: text(
    "",
    `tokenizer to use instead of the model's: ${tokenizerFlags.tokenizer.help}; default without a model: gpt2`,
  ),
  ...rowFlags,
  num_rows: int(3, "number of rows to print token by token", { min: 0 }),
};

export const data = command({
  name: "data",
  flags: dataFlags,
  words: { takes: "one file", example: ["FILE"] },
  help: {
    does:
      "Prints the first rows of a file for finetune as the model will see them, token by token. Tokens that the model learns\n" +
      "to write are green, or in brackets. Then prints how many rows and tokens the file has, and how long its rows are.",
    usage: "FILE",
    notes:
      "FILE is .jsonl, .json, .csv or .parquet. It has the columns text; or messages; or prompt and completion; or prompt;\n" +
      "or chosen and rejected; or prompt and completions; or text and label; or context, choices and label.\n\n",
  },
  async run({ words: [path], values, progress, interruption }) {
    const { tokenizer: own, blockSize } = await describe(values, progress);
    const chatty = await chatting(own, values.template);
    const tokenizer = isMarked(values.task) ? chatty.withSpecialTokens(INPUT_TOKENS) : chatty;
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
    if (signal.aborted) progress.line("Summary of the rows read so far:");
    for (const line of summary.lines()) progress.line(line);
    if (summary.plainTexts > 0 && endOfText(tokenizer) === null) {
      progress.line(NO_END);
    }
    signal.throwIfAborted();
    if (summary.labels === 0 && summary.trained > 0) throw new DataError(`${path}: no row has a token that is learned`);
  },
});

/** The tokenizer, and the block size of the model; 0 if no model is named. */
async function describe(
  { init_from, tokenizer }: { init_from: string; tokenizer: string },
  progress: Progress,
): Promise<{ tokenizer: Tokenizer; blockSize: number }> {
  if (!init_from) return { tokenizer: await loadTokenizer(tokenizer || "gpt2"), blockSize: 0 };
  const { describePretrained } = await import("../pretrained/load.ts");
  return describePretrained(init_from, { tokenizer: tokenizer || undefined, onProgress: reportDownload(progress) });
}

/** The rows of tokens that the model sees for an example. */
async function partsOf(example: Example, task: string, options: TokenizeOptions): Promise<Part[]> {
  if (example.kind === "label" || example.kind === "choice") return sequencesOf(example, task, options);
  const part = async (name: string, example: Parameters<typeof tokenizeExample>[0]): Promise<Part> => {
    const row = await tokenizeExample(example, options);
    return { name, ...row, labels: labelCount(row) };
  };
  switch (example.kind) {
    case "text":
    case "completion":
      return [await part("", example)];
    case "prompt": {
      const ids = await tokenizePrompt(example, options), { length } = ids;
      return [{ name: "", ids, learned: new Uint8Array(length), fullLength: length, merged: false }];
    }
    case "preference": {
      const rows = preferenceRows(await tokenizePreference(example, options), options);
      return Object.entries(rows).map(([name, row]) => ({ name, ...row, labels: labelCount(row) }));
    }
    case "ranking": {
      const rows = await tokenizeRanking(example, options);
      return rows.map((ids, i) => {
        return { name: `${i + 1}`, ids, learned: new Uint8Array(ids.length), fullLength: ids.length, merged: false };
      });
    }
  }
}

/** Whether a task's rows have GPT-1's special tokens by default. */
const isMarked = (task: string): boolean => isHeadTask(task) && formOf(task, { form: "auto" }) === "gpt1";

/** The sequences that a head sees for a row. */
function sequencesOf(
  example: HeadExample,
  task: string,
  { maxLength = Infinity, ...options }: TokenizeOptions,
): Part[] {
  const { tokenizer, truncation, special } = options, tokens = isMarked(task) ? inputTokens(tokenizer) : undefined;
  const kind = isHeadTask(task) ? task : example.kind === "choice" ? "choose" : "classify";
  const how = { kind, tokenizer, tokens, truncation, special };
  const { sequences, cut } = inputsOf(example, { ...how, maxLength });
  const whole = cut ? inputsOf(example, { ...how, maxLength: Infinity }).sequences : sequences;
  return sequences.map((ids, i) => ({
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
    case "ranking":
      return `a ranking of ${example.completions.length} answers, best first`;
    case "prompt":
      return "a prompt";
    case "label":
      return `a text with the label ${JSON.stringify(example.label)}`;
    case "choice":
      return `a choice of ${example.choices.length}`;
  }
}
