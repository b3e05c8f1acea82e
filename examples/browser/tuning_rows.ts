/** Makes the rows for fine-tuning a loaded model, from a text or a file of rows. */
import { ChatTemplate, holdOut, labelCount, readExamples, tokenizeExample, TokenRows } from "@nanogpt/ts/data";
import type { Tokenizer } from "@nanogpt/ts/tokenizer";
import { Breather } from "../../src/loop/breather.ts";
import type { TuningRows } from "@nanogpt/ts/finetune";

interface RowsOptions {
  readonly tokenizer: Tokenizer;
  /** Maximum number of tokens of a row. */
  readonly context: number;
  readonly seed: number;
}

/** Fraction of the rows that is held out. */
const SHARE = 0.1;

/** Cuts a text into rows of `context` tokens; the last tenth is held out. */
export function rowsOfText(text: string, { tokenizer, context }: RowsOptions): TuningRows {
  const ids = tokenizer.encode(text, { allowedSpecial: "all" }), count = Math.floor(ids.length / context);
  if (count < 2) {
    throw new Error(
      `The text has ${ids.length} tokens; at least ${
        2 * context
      } are needed: one row of ${context} to train on and one to hold out`,
    );
  }
  const rows = { train: new TokenRows(), val: new TokenRows() }, held = Math.ceil(SHARE * count);
  for (let row = 0; row < count; row++) {
    const piece = ids.slice(row * context, (row + 1) * context);
    rows[row < count - held ? "train" : "val"].push({ ids: piece, learned: new Uint8Array(context).fill(1) });
  }
  return rows;
}

/**
 * Reads the rows of a file: texts, or prompts and completions, of which only the completions are learned. Conversations
 * need a model with a built-in template (ChatML or plain), because other templates are rendered in a worker of Deno or
 * Node.js.
 */
export async function rowsOfFile(path: string, { tokenizer, context, seed }: RowsOptions): Promise<TuningRows> {
  using template = ChatTemplate.of(tokenizer);
  const all: Awaited<ReturnType<typeof tokenizeExample>>[] = [], breather = new Breather();
  let count = 0;
  for await (const example of readExamples(path, { kinds: ["text", "completion"] })) {
    if (example.kind !== "text" && example.kind !== "completion") continue;
    const row = await tokenizeExample(example, { tokenizer, template, maxLength: context });
    count++;
    if (labelCount(row) > 0) all.push(row);
    await breather.breathe();
  }
  if (all.length < 2) {
    throw new Error(
      `${all.length} of ${count} rows have tokens to learn; at least two are needed, one to train on and one to hold out`,
    );
  }
  const rows = { train: new TokenRows(), val: new TokenRows() },
    { train, held } = holdOut(all.length, { share: SHARE, seed });
  for (const i of train) rows.train.push(all[i]);
  for (const i of held) rows.val.push(all[i]);
  return rows;
}
