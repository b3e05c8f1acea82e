/** How well a model with a head does on rows with labels: `eval --data=FILE`. */
import { readExamples } from "../data/examples.ts";
import type { Device } from "../engine/device.ts";
import { HeadRows } from "../finetune/head_rows.ts";
import { HeadTask } from "../finetune/head_task.ts";
import { type HeadExample, inputsOf } from "../finetune/inputs.ts";
import { Breather } from "../loop/breather.ts";
import { loadHead, type PretrainedHead } from "../pretrained/load_head.ts";
import { judgeBatch } from "../train/estimate_loss.ts";
import { Trained } from "../train/micro_steps.ts";
import type { Values } from "./flags.ts";
import { count, type Progress } from "./progress.ts";
import { parseColumns } from "./row_flags.ts";
import { modelName } from "./run_model.ts";
import { encodeOptions, type modelFlags } from "./shared_flags.ts";

type HeadValues = Values<typeof modelFlags> & { data: string; columns: string; special_tokens: string };

/** @returns lines: the loss, what the task measures, and how many rows there are */
export async function evaluateHead(
  values: HeadValues,
  device: Device,
  { progress, signal }: { progress: Progress; signal: AbortSignal },
): Promise<string[]> {
  const { weights, checkpoint } = values, adapter = values.adapter || undefined;
  const onNote = (line: string) => progress.line(line);
  const loaded = await loadHead(modelName(values), { device, weights, inference: true, checkpoint, adapter, onNote });
  const { rows, cut } = await readRows(values, loaded), { model, head, description } = loaded;
  if (cut > 0) {
    progress.line(`rows longer than the model's ${model.config.blockSize} tokens: ${count(cut)}, cut at the end`);
  }
  const task = new HeadTask(model, { train: rows, val: rows }, {
    ...description,
    head,
    labelling: description,
    batchSize: 16,
    lmWeight: 0,
  });
  const trained = new Trained(model, task),
    sums: Record<string, number> = {},
    breather = new Breather();
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
  const lines = Object.entries(sums).map(([name, sum]) => [name, (sum / done).toFixed(4)]);
  return [...lines, ["rows", count(rows.length)]].map(([name, value]) => `${name.padEnd(14)} ${value}`);
}

async function readRows(
  { data, columns, special_tokens }: HeadValues,
  { model, tokenizer, description: { kind, tokens } }: PretrainedHead,
): Promise<{ rows: HeadRows; cut: number }> {
  const rows = new HeadRows(), kinds = [kind === "choose" ? "choice" : "label"] as const;
  const how = { kind, tokenizer, maxLength: model.config.blockSize, tokens, special: encodeOptions(special_tokens) };
  let cut = 0;
  for await (const example of readExamples(data, { kinds, columns: parseColumns(columns) })) {
    const inputs = inputsOf(example as HeadExample, how);
    if (inputs.cut) cut++;
    rows.add(inputs.sequences, example as HeadExample);
  }
  return { rows, cut };
}
