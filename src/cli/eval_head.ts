/**
 * `eval --data=FILE`: evaluates a model with a head on rows with labels or choices, or a reward model on pairs and
 * rankings.
 */
import { ChatTemplate } from "../data/chat_template.ts";
import { type Kind, readExamples } from "../data/examples.ts";
import { tokenizeRanking } from "../data/tokenize_preference.ts";
import type { Device } from "../engine/device.ts";
import { DataError } from "../errors.ts";
import { HeadRows } from "../finetune/head_rows.ts";
import { HeadTask } from "../finetune/head_task.ts";
import type { SequenceClassifier } from "../finetune/heads.ts";
import { type HeadExample, inputsOf } from "../finetune/inputs.ts";
import { RewardModelling } from "../finetune/reward.ts";
import { Breather } from "../loop/breather.ts";
import { loadHead, type PretrainedHead } from "../pretrained/load_head.ts";
import { judgeBatch } from "../train/estimate_loss.ts";
import { Trained } from "../train/micro_steps.ts";
import type { Values } from "./flags.ts";
import { isReward } from "./finetune_preferences.ts";
import { count, type Progress } from "./progress.ts";
import { parseColumns } from "./row_flags.ts";
import { modelName } from "./run_model.ts";
import { encodeOptions, type modelFlags } from "./shared_flags.ts";

type HeadValues = Values<typeof modelFlags> & { data: string; columns: string; special_tokens: string };

/**
 * Evaluates the head of the model that the flags name.
 *
 * @returns lines: the loss, the task's measures, and the number of rows
 */
export async function evaluateHead(
  values: HeadValues,
  device: Device,
  { progress, signal }: { progress: Progress; signal: AbortSignal },
): Promise<string[]> {
  const { weights, checkpoint } = values, adapter = values.adapter || undefined;
  const onNote = (line: string) => progress.line(line);
  const loaded = await loadHead(modelName(values), { device, weights, inference: true, checkpoint, adapter, onNote });
  const { rows, ranked, long } = await readRows(values, loaded), { model, head, description } = loaded;
  const { blockSize: maxLength } = model.config;
  if (long > 0) {
    const what = ranked ? "with a text of more than" : "longer than";
    progress.line(
      `rows ${what} the model's ${maxLength} tokens: ${count(long)}, ${ranked ? "left out" : "cut at the end"}`,
    );
  }
  if (rows.length === 0) throw new DataError(`${values.data}: there are no rows to evaluate on`);
  const splits = { train: rows, val: rows }, sizes = { batchSize: 16, maxLength };
  const task: HeadTask | RewardModelling = ranked
    ? new RewardModelling(model, splits, {
      ...sizes,
      padTokenId: description.padTokenId,
      head: head as SequenceClassifier,
    })
    : new HeadTask(model, splits, { ...description, ...sizes, head, labelling: description, lmWeight: 0 });
  const trained = new Trained(model, task), sums: Record<string, number> = {}, breather = new Breather();
  let done = 0;
  for (const batch of task.evaluate("val", { count: rows.length })) {
    signal.throwIfAborted();
    const { loss, outputs } = judgeBatch(trained, task, batch), { weight = 1 } = batch;
    using _ = loss, __ = outputs;
    const found = { loss: await loss.item(), ...task.measure(await outputs!.data(), batch) };
    for (const [name, value] of Object.entries(found)) sums[name] = (sums[name] ?? 0) + weight * value;
    done += weight;
    progress.status(() => `${count(done)} of ${count(rows.length)} rows`);
    await breather.breathe();
  }
  progress.end();
  const means = Object.fromEntries(Object.entries(sums).map(([name, sum]) => [name, sum / done]));
  const { min_reward: _, max_reward: __, ...shown } = task instanceof RewardModelling ? task.conclude(means) : means; // of batches
  return [...Object.entries(shown).map(([name, value]) => [name, value.toFixed(4)]), ["rows", count(rows.length)]]
    .map(([name, value]) => `${name.padEnd(ranked ? 18 : 14)} ${value}`);
}

/** Reads the rows. @returns the rows, whether they are rankings, and the number of rows that are too long */
async function readRows(
  { data, columns, special_tokens }: HeadValues,
  { model, tokenizer, description }: PretrainedHead,
): Promise<{ rows: HeadRows; ranked: boolean; long: number }> {
  const { kind, tokens } = description,
    { blockSize: maxLength } = model.config,
    special = encodeOptions(special_tokens);
  const kinds: Kind[] = [kind === "choose" ? "choice" : "label", ...isReward(description) ? RANKED : []];
  using template = ChatTemplate.of(tokenizer);
  const rows = new HeadRows();
  let long = 0, ranked = false;
  for await (const example of readExamples(data, { kinds, columns: parseColumns(columns) })) {
    if (example.kind === "ranking" || example.kind === "preference") {
      ranked = true;
      const texts = await tokenizeRanking(example, { tokenizer, template, special });
      if (texts.some(({ length }) => length > maxLength)) long++;
      else rows.add(texts, { where: example.where, label: example.kind === "ranking" ? 0 : example.margin ?? 0 });
      continue;
    }
    const inputs = inputsOf(example as HeadExample, { kind, tokenizer, maxLength, tokens, special });
    long += Number(inputs.cut);
    rows.add(inputs.sequences, example as HeadExample);
  }
  return { rows, ranked, long };
}
const RANKED: readonly Kind[] = ["preference", "ranking"];
