/** The tasks of `finetune` that train a head: classify, entail, similar, choose. */
import type { RunFolder } from "../checkpoint/run_folder.ts";
import { storedFeatures } from "../finetune/head_passes.ts";
import { HeadRows } from "../finetune/head_rows.ts";
import { describeHead, type Head, type HeadDescription } from "../finetune/head_description.ts";
import { HeadTask } from "../finetune/head_task.ts";
import type { Splits } from "../finetune/row_task.ts";
import { addInputTokens, type HeadKind, inputsOf, inputTokens } from "../finetune/inputs.ts";
import { labellingOf } from "../finetune/labels.ts";
import { trainLastBlocks } from "../finetune/transfer.ts";
import type { GPT } from "../gpt.ts";
import type { Pretrained } from "../pretrained/load.ts";
import { RandomGenerator } from "../random/mod.ts";
import { specialIds } from "../tokenizer/to_hugging_face.ts";
import { taskCommand } from "./command.ts";
import type { FinetuneValues } from "./finetune_flags.ts";
import { cutLines, maxLengthOf, readSplits, type Tuning, type TuningSetup } from "./finetune_tasks.ts";
import { formOf } from "./head_flags.ts";
import { count } from "./progress.ts";
import { encodeOptions } from "./shared_flags.ts";

/** A model to train a head on, with its head if it already has one. */
export interface HeadStart extends Pretrained {
  readonly head?: Head;
  readonly description?: HeadDescription;
}

/** The ids of the entries that were added to a vocabulary of `known` entries. */
export const idsSince = (known: number, { vocabSize }: Pick<Pretrained["tokenizer"], "vocabSize">): number[] =>
  Array.from({ length: vocabSize - known }, (_, i) => known + i);

/** The model that `--init_from` names. GPT-1's special tokens are added if the form of the rows needs them. */
export function headStart(
  values: FinetuneValues,
  start: HeadStart,
): HeadStart & { readonly added?: readonly number[] } {
  const { model, tokenizer, head, description } = start, task = values.task as HeadKind, form = formOf(task, values);
  model.train();
  if (description?.kind === task && (description.tokens !== undefined) === (form === "gpt1")) return start;
  head?.dispose(); // it was trained for another task
  if (form !== "gpt1") return { model, tokenizer };
  const known = tokenizer.vocabSize, more = addInputTokens(model, tokenizer, { seed: values.seed }).tokenizer;
  return { model, tokenizer: more, added: idsSince(known, more) };
}

/** The description of the head in a run's last checkpoint. */
export async function resumedHead(run: RunFolder): Promise<HeadDescription | undefined> {
  const { name, state } = await run.checkpoint("last");
  return describeHead(state.task, `${run.path}/${name}/state.json`);
}

/** Makes the trainer's task. */
export async function headTask(
  { values, model, tokenizer, progress, start = {} }: TuningSetup,
): Promise<Tuning> {
  const { data, eval_data, batch_size: batchSize, seed, truncation, train_blocks, lora_rank, problem_type } = values;
  const kind = values.task as HeadKind, maxLength = maxLengthOf(values, model), { head, description } = start;
  const tokens = formOf(kind, values) === "gpt1" ? description?.tokens ?? inputTokens(tokenizer) : undefined;
  const how = { kind, tokenizer, maxLength, truncation, tokens, special: encodeOptions(values.special_tokens) };
  let cut = 0, read = 0;
  const splits = await readSplits(values, kind === "choose" ? ["choice"] : ["label"], progress, (example) => {
    const inputs = inputsOf(example, how);
    read++;
    if (inputs.cut) cut++;
    return Promise.resolve({ ...inputs, where: example.where, label: example.label });
  });
  const rows = { train: rowsOf(splits.train), val: rowsOf(splits.val) };
  const given = problem_type === "auto" ? undefined : problem_type;
  const labelling = kind === "choose" ? undefined : labellingOf(rows.train.labels, {
    ...description ?? { problemType: given },
    others: rows.val.labels,
  });
  const freeze = (model: GPT) => train_blocks >= 0 && lora_rank === 0 && trainLastBlocks(model, train_blocks);
  freeze(model);
  const padTokenId = description ? description.padTokenId : padOf(tokenizer);
  const features = values.features ? await featuresOf(values, model, { rows, padTokenId, progress }) : undefined;
  const task = new HeadTask(model, rows, {
    ...{ kind, labelling, batchSize, maxLength, tokens, padTokenId, seed, head, features },
    ...{ layerDecay: values.layer_decay, unfreezeEvery: values.unfreeze_every },
    lmWeight: values.lm_weight < 0 ? undefined : values.lm_weight,
    dropout: description?.dropout,
    generator: new RandomGenerator(seed),
  });
  const { labels } = task.description, files = eval_data ? `${data} and ${eval_data}` : data;
  return {
    task,
    microBatches: { train: task.microBatches("train"), val: task.microBatches("val") },
    rehearse: (model) => {
      freeze(model);
      return task.rehearsal(model);
    },
    data: [
      `${files}: ${count(rows.train.length)} rows to train on, ${count(rows.val.length)} to evaluate on`,
      kind === "choose"
        ? `at most ${count(labels.length)} choices`
        : `${task.description.problemType}: ${labels.slice(0, 20).join(", ")}${labels.length > 20 ? ", …" : ""}`,
      ...cutLines({ cut, rows: read, maxLength }, values),
    ],
    after: afterwards(values, task),
  };
}

function rowsOf(all: readonly { sequences: readonly Int32Array[]; where: string; label: HeadLabel }[]): HeadRows {
  const rows = new HeadRows();
  for (const { sequences, where, label } of all) rows.add(sequences, { where, label });
  return rows;
}
type HeadLabel = Parameters<HeadRows["add"]>[1]["label"];

/**
 * The token that pads rows and is never pooled: the tokenizer's padding token, or as usual with GPT-2 its end-of-text
 * token.
 */
function padOf(tokenizer: Pretrained["tokenizer"]): number | undefined {
  const { pad_token_id, eos_token_id } = specialIds(tokenizer);
  return pad_token_id ?? eos_token_id ?? undefined;
}

async function featuresOf(
  { features: path }: FinetuneValues,
  model: GPT,
  { progress, ...of }: { rows: Splits<HeadRows>; padTokenId?: number; progress: TuningSetup["progress"] },
): Promise<Splits<Float32Array>> {
  const onProgress = (done: number, total: number) =>
    progress.status(() => `features: ${count(done)} of ${count(total)} rows`);
  const { features, read } = await storedFeatures(path, model, { ...of, onProgress });
  progress.end();
  progress.line(read ? `features are read from ${path}` : `features are saved in ${path}`);
  return features;
}

/** Lines that say how to use the trained head. */
function afterwards({ out_dir }: FinetuneValues, { description: { kind, tokens } }: HeadTask): string[] {
  if (kind === "choose") {
    return ["", "To convert it for transformers:", `  ${taskCommand("convert", [out_dir, "FOLDER"])}`];
  }
  const use = `const classify = await pipeline("text-classification", ${JSON.stringify(out_dir)});`;
  const folder = tokens ? [] : ["To convert it for transformers:", `  ${taskCommand("convert", [out_dir, "FOLDER"])}`];
  return ["", "To use it:", `  import { pipeline } from "@nanogpt/ts";`, `  ${use}`, ...folder];
}
