/** The tasks that `finetune` knows: each makes the trainer's task of the rows in a file. */
import { SupervisedTuning } from "../finetune/sft.ts";
import { DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Task } from "../train/task.ts";
import type { FinetuneValues } from "./finetune_flags.ts";
import { count } from "./progress.ts";

/** What a task is made of. */
export interface TuningSetup {
  readonly values: FinetuneValues;
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
  /** Prints a line. */
  readonly note: (line: string) => void;
}

/** A task, ready for the trainer. */
export interface Tuning {
  readonly task: Task;
  /** Updates in an epoch, and micro-batches in an evaluation of the held-out rows. */
  readonly updates: number;
  readonly evaluations: number;
  /** The task's batches of every shape on another model, one that only counts: for the memory that they take. */
  rehearse(model: GPT): Task;
  /** On the rows, in a line. */
  readonly data: string;
}

export const TASKS: Record<FinetuneValues["task"], (setup: TuningSetup) => Promise<Tuning>> = { sft };

async function sft({ values, model, tokenizer }: TuningSetup): Promise<Tuning> {
  const { data, eval_share, batch_size: batchSize, gradient_accumulation_steps, max_length, seed } = values;
  const maxLength = Math.min(max_length, model.config.blockSize);
  const all = (await readRows(data)).map((row) => tokenize(row, tokenizer, maxLength));
  const held = Math.ceil(all.length * eval_share);
  const rowsOf = (rows: typeof all) => ({ length: rows.length, row: (index: number) => rows[index] });
  const rows = { train: rowsOf(all.slice(0, all.length - held)), val: rowsOf(all.slice(all.length - held)) };
  const options = { batchSize, maxLength, seed };
  const task = new SupervisedTuning(model, rows, options);
  return {
    task,
    updates: task.updatesPerEpoch(gradient_accumulation_steps),
    evaluations: Math.ceil(rows.val.length / batchSize),
    rehearse: (model) => new SupervisedTuning(model, rows, options),
    data: `${data}: ${count(rows.train.length)} rows to train on, ${count(held)} to evaluate on`,
  };
}

interface Row {
  readonly text?: string;
  readonly prompt?: string;
  readonly completion?: string;
}

async function readRows(path: string): Promise<Row[]> {
  const text = await Deno.readTextFile(path);
  return text.split("\n").filter(Boolean).map((line, i) => {
    const row = JSON.parse(line) as Row;
    if (row.text !== undefined || row.prompt !== undefined && row.completion !== undefined) return row;
    throw new DataError(`${path}, line ${i + 1}: expected text, or prompt and completion`);
  });
}

function tokenize({ text, prompt = "", completion }: Row, tokenizer: Tokenizer, maxLength: number) {
  const ids = tokenizer.encode(text ?? prompt + completion).subarray(0, maxLength);
  const begin = text === undefined ? tokenizer.encode(prompt).length : 0;
  return { ids, learned: Uint8Array.from(ids, (_, i) => i >= begin ? 1 : 0) };
}
