/** The tasks that `finetune` knows: each makes the trainer's task of the rows in a file. */
import type { RunFolder } from "../checkpoint/run_folder.ts";
import type { RunBase } from "../checkpoint/run_json.ts";
import { ChatTemplate } from "../data/chat_template.ts";
import { holdOut } from "../data/epochs.ts";
import { type Example, type Kind, readExamples } from "../data/examples.ts";
import { countRow, endOfText, type RowCounts, tokenizeExample } from "../data/tokenize_example.ts";
import { TokenRows } from "../data/token_rows.ts";
import type { Device } from "../engine/device.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { Reward } from "../finetune/rewards.ts";
import { SupervisedTuning } from "../finetune/sft.ts";
import type { GPT } from "../gpt.ts";
import { Breather } from "../loop/breather.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Task } from "../train/task.ts";
import type { FinetuneValues } from "./finetune_flags.ts";
import type { HeadStart } from "./finetune_heads.ts";
import { count, type Progress } from "./progress.ts";
import { NO_END, parseColumns, rowOptions } from "./row_flags.ts";

/** What a task is made of. */
export interface TuningSetup {
  readonly values: FinetuneValues;
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
  readonly progress: Progress;
  /** A head that the model has already, or what a resumed run says of its own. */
  readonly start?: Partial<HeadStart>;
  /** The run that goes on. */
  readonly run?: RunFolder;
  /** What scores completions in place of `--reward`. */
  rewards?(device: Device): Promise<readonly Reward[]>;
}

/** A task, ready for the trainer. */
export interface Tuning {
  readonly task: Task;
  /** Micro-batches in an epoch, and in an evaluation of the held-out rows. */
  readonly microBatches: { readonly train: number; readonly val: number };
  /** The task's batches of every shape on another model, one that only counts: for the memory that they take. */
  rehearse(model: GPT): Task;
  /** Lines on the rows. */
  readonly data: readonly string[];
  /** What the tuned model is shown when it is done, for a sample. */
  readonly prompt?: ArrayLike<number>;
  /** How many tokens it may answer with. */
  readonly sampleTokens?: number;
  /** Whether all of the rows are conversations. */
  readonly chats?: boolean;
  /** Lines to end with instead of a sample. */
  readonly after?: readonly string[];
  /** What run.json says of the model that the policy is compared with. */
  readonly reference?: RunBase;
  /** What an evaluation has shown, in lines. */
  shown?(): readonly string[];
  /** What the task has besides the trainer's, to be freed at the end. */
  readonly owned?: Disposable;
}

/** Tokens of a row at most: what was asked for, or the model's block size. */
export function maxLengthOf({ max_length: asked }: FinetuneValues, { config: { blockSize } }: GPT): number {
  if (asked <= blockSize) return asked || blockSize;
  throw new ConfigError(`--max_length=${asked}: the model sees ${blockSize} tokens at once; expected no more`);
}

/**
 * The examples of `--data`, and of `--eval_data`: or those that are held out.
 *
 * @param take makes of an example what the task keeps of it, or nothing where it is left out
 */
export async function readSplits<K extends Kind, T>(
  { data, eval_data, eval_share: share, seed, columns }: FinetuneValues,
  kinds: readonly K[],
  progress: Progress,
  take: (example: Extract<Example, { kind: K }>) => Promise<T | undefined>,
): Promise<{ train: T[]; val: T[] }> {
  const breather = new Breather();
  const all = async (path: string) => {
    const taken: T[] = [];
    const more = (kinds as readonly Kind[]).includes("prompt");
    for await (const example of readExamples(path, { kinds, columns: parseColumns(columns), more })) {
      const one = await take(example as Extract<Example, { kind: K }>);
      if (one !== undefined) taken.push(one);
      progress.status(() => `${path}: ${count(taken.length)} rows`);
      await breather.breathe();
    }
    progress.end();
    return taken;
  };
  const rows = await all(data);
  if (eval_data) return { train: rows, val: await all(eval_data) };
  if (rows.length === 1) {
    throw new DataError(`${data}: one row is left, and none to evaluate on; name a file with --eval_data`);
  }
  const { train, held } = holdOut(rows.length, { share, seed });
  return { train: Array.from(train, (i) => rows[i]), val: Array.from(held, (i) => rows[i]) };
}

/** A line on rows that are too long, where there are any. */
export function cutLines(
  { cut, rows, maxLength }: { readonly cut: number; readonly rows: number; readonly maxLength: number },
  { truncation }: Pick<FinetuneValues, "truncation">,
): string[] {
  if (cut === 0) return [];
  const end = truncation === "keep_end" ? "beginning" : "end";
  return [`rows longer than ${maxLength} tokens: ${count(cut)} of ${count(rows)}, cut at the ${end}`];
}

/** Supervised tuning: rows of texts, or of prompts and completions. */
export async function sft({ values, model, tokenizer, progress }: TuningSetup): Promise<Tuning> {
  const { data, eval_data, batch_size: batchSize, packing, seed } = values;
  const maxLength = maxLengthOf(values, model);
  using template = ChatTemplate.of(tokenizer, { name: values.template || undefined });
  const options = rowOptions(values, { tokenizer, template, maxLength });
  const counts: RowCounts = { rows: 0, cut: 0, dropped: 0, labels: 0 }, all = new TokenRows();
  let plain = false;
  const { train, val } = await readSplits(values, ["text", "completion"], progress, async (example) => {
    const row = await tokenizeExample(example, options);
    plain ||= typeof (example.kind === "text" ? example.text : example.completion) === "string";
    if (!countRow(counts, row)) return undefined;
    all.push(row);
    return all.length - 1;
  });
  const files = eval_data ? `${data} and ${eval_data}` : data;
  if (counts.dropped === counts.rows) {
    const why = counts.cut > 0 ? `; ${count(counts.cut)} are cut to ${maxLength} tokens, which their prompts fill` : "";
    throw new DataError(`${files}: no row has a token that is learned${why}\ndeno task data shows what is`);
  }
  const rows = { train: new TokenRows(), val: new TokenRows() };
  for (const row of train) rows.train.push(all.row(row));
  for (const row of val) rows.val.push(all.row(row));
  const task = new SupervisedTuning(model, rows, { batchSize, maxLength, packing, seed });
  const { ids, learned } = rows.val.row(0), answer = learned.indexOf(1);
  return {
    task,
    microBatches: { train: task.microBatches("train"), val: task.microBatches("val") },
    rehearse: () => task.rehearsal(),
    chats: !plain,
    prompt: answer > 0 ? ids.slice(0, answer) : undefined,
    data: [
      `${files}: ${count(train.length)} rows to train on, ${count(val.length)} to evaluate on; ` +
      `${count(rows.train.tokens + rows.val.tokens)} tokens, ${count(counts.labels)} of them learned`,
      ...packing ? [`packed into ${count(task.bins("train"))} rows and ${count(task.bins("val"))}`] : [],
      ...cutLines({ ...counts, maxLength }, values),
      ...counts.dropped > 0
        ? [`rows without a token that is learned: ${count(counts.dropped)} of ${count(counts.rows)}, left out`]
        : [],
      ...plain && endOfText(tokenizer) === null ? [NO_END] : [],
    ],
  };
}
