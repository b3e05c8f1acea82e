/**
 * A job's folder. `run` is the run folder that the job trains in. Each `checkpoints/step-N` is a run folder without the
 * optimizer's state, from which a model is served. `result` exists only while the job finishes.
 */
import type * as fs from "node:fs";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS } from "../checkpoint/adapter.ts";
import { readMetrics } from "../checkpoint/metrics.ts";
import type { RunFolder } from "../checkpoint/run_folder.ts";
import { saveHuggingFace } from "../checkpoint/hugging_face_save.ts";
import { ConfigError } from "../errors.ts";
import { exists, readJson, syncDirectory, writeFile, writeJson } from "../files/files.ts";
import { builtin, system } from "../files/system.ts";
import type { GPT } from "../gpt.ts";
import { toHuggingFaceTokenizer } from "../tokenizer/to_hugging_face.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { checkpointFolder, type JobOrder, type ResultFile } from "./job_messages.ts";

/** Free bytes on the disk; undefined if the system does not permit the query. */
export function availableBytes(path: string): number | undefined {
  try {
    const { bavail, bsize } = builtin<typeof fs>("node:fs").statfsSync(path);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}

/** Removes a file or a folder, if it exists. */
export async function removeAll(path: string): Promise<void> {
  if (await exists(path)) await system.remove(path, { recursive: true });
}

/**
 * Removes what a finished job no longer needs: everything but the models that it has made. It does not fail, because no
 * one waits for it: the folder may be removed meanwhile.
 */
export async function clearJob(folder: string): Promise<void> {
  const names = await Array.fromAsync(system.readDir(folder), ({ name }) => name).catch(() => []);
  for (const name of names) {
    if (name !== "checkpoints") await removeAll(`${folder}/${name}`).catch(() => {});
  }
}

/**
 * Makes a second run folder with the run's last checkpoint. Its files are hard links, so it takes no extra room until
 * the run saves its next checkpoint. Does nothing if that folder exists.
 */
export async function takeCheckpoint(run: RunFolder, folder: string, iter: number): Promise<void> {
  const target = checkpointFolder(folder, iter), partial = `${target}.part`, name = run.last!;
  if (await exists(target)) return;
  await removeAll(partial);
  await system.mkdir(`${partial}/${name}`, { recursive: true });
  for await (const { name: file } of system.readDir(`${run.path}/${name}`)) {
    if (file !== "optimizer.safetensors") await link(`${run.path}/${name}/${file}`, `${partial}/${name}/${file}`);
  }
  const { best: _, ...description } = await readJson(`${run.path}/run.json`);
  await writeJson(`${partial}/run.json`, { ...description, last: name });
  await system.copyFile(`${run.path}/vocabulary.json`, `${partial}/vocabulary.json`);
  await syncDirectory(partial);
  await system.rename(partial, target);
  await syncDirectory(`${folder}/checkpoints`);
}

/** Makes a hard link, or a copy if the file system has no hard links. */
function link(from: string, to: string): Promise<void> {
  return builtin<typeof fs>("node:fs").promises.link(from, to).catch(() => system.copyFile(from, to));
}

/** Whether a checkpoint has an adapter. */
export const isAdapter = async (checkpoint: string): Promise<boolean> => await adapterOf(checkpoint) !== undefined;

/** The folder with a checkpoint's adapter; undefined if it has none. */
async function adapterOf(checkpoint: string): Promise<string | undefined> {
  const { last } = await readJson(`${checkpoint}/run.json`), folder = `${checkpoint}/${last}`;
  return await exists(`${folder}/${ADAPTER_WEIGHTS}`) ? folder : undefined;
}

/**
 * Writes a job's result files: weights and config in the format of transformers or PEFT, the tokenizer, and a table of
 * metrics.
 */
export async function saveResult(
  { folder, base }: Pick<JobOrder, "folder" | "base">,
  iter: number,
  { model, tokenizer }: { readonly model: GPT; readonly tokenizer: Tokenizer },
): Promise<ResultFile[]> {
  const result = `${folder}/result`, adapter = await adapterOf(checkpointFolder(folder, iter));
  await removeAll(result);
  const words = wordsOf(tokenizer), transformers = words !== undefined;
  if (adapter) {
    await system.mkdir(result);
    await link(`${adapter}/${ADAPTER_WEIGHTS}`, `${result}/${ADAPTER_WEIGHTS}`);
    // Names the base by its id: clients must not see its path on the server.
    const config = { ...await readJson(`${adapter}/${ADAPTER_CONFIG}`), base_model_name_or_path: base };
    await writeJson(`${result}/${ADAPTER_CONFIG}`, config);
    for (const [name, contents] of Object.entries(words ?? {})) {
      if (typeof contents === "string") await writeFile(`${result}/${name}`, [new TextEncoder().encode(contents)]);
      else await writeJson(`${result}/${name}`, contents);
    }
  } else await saveHuggingFace(model, result, transformers ? { tokenizer } : {});
  if (!transformers) await writeJson(`${result}/vocabulary.json`, tokenizer.toJSON());
  await writeFile(`${result}/step_metrics.csv`, [new TextEncoder().encode(await metricsTable(`${folder}/run`))]);
  const files: ResultFile[] = [];
  for await (const { name } of system.readDir(result)) {
    const path = `${result}/${name}`, { size: bytes } = await system.stat(path);
    files.push({ name, path, bytes });
  }
  return files.sort((a, b) => a.name < b.name ? -1 : 1);
}

/** A tokenizer's files in the format of transformers; undefined if that format cannot express it. */
function wordsOf(tokenizer: Tokenizer): Record<string, unknown> | undefined {
  try {
    return { ...toHuggingFaceTokenizer(tokenizer) };
  } catch (error) {
    if (error instanceof ConfigError) return undefined;
    throw error;
  }
}

/**
 * The metrics as CSV: OpenAI's columns, with empty accuracies if they were not measured, and the task's other metrics.
 * Step n is the nth update, or an evaluation after it, as in the job's events.
 */
async function metricsTable(run: string): Promise<string> {
  const rows = new Map<number, Record<string, number>>();
  for (
    const { iter, ms: _, lr: __, grad_norm: ___, tokens_per_second: ____, ...line } of await readMetrics(
      `${run}/metrics.jsonl`,
    )
  ) {
    const { loss, train_loss: _, train_mean_token_accuracy: __, val_loss, ...rest } = line as Record<string, number>,
      { mean_token_accuracy, val_mean_token_accuracy, ...others } = rest,
      { train_accuracy = mean_token_accuracy, val_accuracy = val_mean_token_accuracy, ...more } = others;
    const step = val_loss === undefined ? iter + 1 : iter;
    rows.set(step, {
      ...rows.get(step),
      ...loss !== undefined && { train_loss: loss },
      ...val_loss !== undefined && { valid_loss: val_loss },
      ...train_accuracy !== undefined && { train_accuracy },
      ...val_accuracy !== undefined && { valid_mean_token_accuracy: val_accuracy },
      ...more,
    });
  }
  const own = ["train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"];
  const names = new Set([...own, ...rows.values().flatMap(Object.keys)]);
  const lines = [...rows].map(([step, row]) => [step, ...[...names].map((name) => row[name] ?? "")].join(","));
  return [["step", ...names].join(","), ...lines, ""].join("\n");
}
