/**
 * Reading of rows, which the tasks of `finetune` share, and the task sft: supervised fine-tuning on texts and
 * conversations.
 */
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
import { taskCommand } from "./command.ts";
import { count, type Progress } from "./progress.ts";
import { NO_END, parseColumns, rowOptions } from "./row_flags.ts";

/** What a task is made from. */
export interface TuningSetup {
  readonly values: FinetuneValues;
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
  readonly progress: Progress;
  /** The head that the model already has, or the description of a resumed run's head. */
  readonly start?: Partial<HeadStart>;
  /** The run to resume. */
  readonly run?: RunFolder;
  /** Makes the rewards; `--reward` is then ignored. */
  rewards?(device: Device): Promise<readonly Reward[]>;
}

/** A task, ready for the trainer. */
export interface Tuning {
  readonly task: Task;
  /** Number of micro-batches in an epoch (`train`), and in an evaluation of all held-out rows (`val`). */
  readonly microBatches: { readonly train: number; readonly val: number };
  /**
   * A task with one batch of each shape, for a model on a device that only counts memory: estimates the memory of
   * training.
   */
  rehearse(model: GPT): Task;
  /** Lines about the rows, to print. */
  readonly data: readonly string[];
  /** The prompt of the sample that is printed at the end. */
  readonly prompt?: ArrayLike<number>;
  /** The maximum number of tokens in that sample. */
  readonly sampleTokens?: number;
  /** Whether all rows are conversations. */
  readonly chats?: boolean;
  /** Lines to print at the end instead of a sample. */
  readonly after?: readonly string[];
  /** The reference model, as stored in run.json. */
  readonly reference?: RunBase;
  /** Lines to print after an evaluation. */
  shown?(): readonly string[];
  /** Resources of the task to free at the end. */
  readonly owned?: Disposable;
}

/** The most tokens of a row: `--max_length`, or the model's block size. */
export function maxLengthOf({ max_length: asked }: FinetuneValues, { config: { blockSize } }: GPT): number {
  if (asked <= blockSize) return asked || blockSize;
  throw new ConfigError(`--max_length=${asked}: expected at most the model's block size, ${blockSize}`);
}

/**
 * Reads the examples of `--data` and `--eval_data`. Without `--eval_data`, holds out a share of the examples for
 * evaluation.
 *
 * @param take converts an example for the task; undefined skips it
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
    throw new DataError(`${data} has one usable row, and none to evaluate on: name another file with --eval_data`);
  }
  const { train, held } = holdOut(rows.length, { share, seed });
  return { train: Array.from(train, (i) => rows[i]), val: Array.from(held, (i) => rows[i]) };
}

/** A line about rows that are too long, if there are any. */
export function cutLines(
  { cut, rows, maxLength }: { readonly cut: number; readonly rows: number; readonly maxLength: number },
  { truncation }: Pick<FinetuneValues, "truncation">,
): string[] {
  if (cut === 0) return [];
  const end = truncation === "keep_end" ? "beginning" : "end";
  return [`rows longer than ${maxLength} tokens: ${count(cut)} of ${count(rows)}, cut at the ${end}`];
}

/** Makes the trainer's task for supervised tuning on texts, or on prompts with completions. */
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
    const show = taskCommand("data", ["--task=sft", data]);
    throw new DataError(`${files}: no row has a token that is learned${why}\nThis prints the rows: ${show}`);
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
        ? [`rows without a token that is learned: ${count(counts.dropped)} of ${count(counts.rows)}, skipped`]
        : [],
      ...plain && endOfText(tokenizer) === null ? [NO_END] : [],
    ],
  };
}
