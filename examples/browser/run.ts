/** A run of the engine: its model, its data, its trainer, and the folder in which they are saved. */
import { type Device, GPT, RandomGenerator, Trainer, type TrainEvent } from "@nanogpt/ts";
import { type RunBase, RunFolder } from "@nanogpt/ts/checkpoint";
import { splitTokens } from "@nanogpt/ts/data";
import { applyLora, loadAdapter, type Lora, SupervisedTuning, trainedAdapter } from "@nanogpt/ts/finetune";
import { identifyModel, loadPretrained } from "@nanogpt/ts/pretrained";
import { CharacterTokenizer, type Tokenizer, tokenizerFromJSON } from "@nanogpt/ts/tokenizer";
import { type Metrics, readMetrics } from "../../src/checkpoint/metrics.ts";
import { readJson, writeFile, writeJson } from "../../src/files/files.ts";
import { system } from "../../src/files/system.ts";
import type { DeviceChoice, SavedRequest, StartRequest } from "./messages.ts";
import { copyFolder, sizeOf, type Storage } from "./storage.ts";
import { rowsOfFile, rowsOfText } from "./tuning_rows.ts";

const REQUEST = "saved/request.json", RUN = "saved/run";
/**
 * Bytes of a checkpoint per trained parameter, and maximum number of checkpoints that exist at once, including one that
 * is being written.
 */
const TRAINED = 12, CHECKPOINTS = 3;
/** Maximum number of batches of an evaluation of rows. */
const MOST_BATCHES = 5;

export interface Model {
  readonly model: GPT;
  readonly tokenizer: Tokenizer;
  /** Path of the loaded model. */
  readonly base?: string;
}

export interface Run extends Model {
  readonly trainer: Trainer;
  readonly lora?: Lora;
  /** Parameters of the adapter. */
  readonly trained?: number;
  /** Number of training tokens, and of held-out tokens. */
  readonly tokens: readonly [number, number];
  readonly sampleLength: number;
  /** The prompt of samples: that of a held-out row, or "" if rows are texts. */
  readonly prompt: string;
  /** Events from before the run was reopened. */
  readonly history: readonly TrainEvent[];
}

/** Loads the model in a folder for training. */
export async function openModel(folder: string, device: Device): Promise<Model> {
  const { model, tokenizer } = await loadPretrained(folder, { device, dropout: 0, trainable: true });
  return { model, tokenizer, base: folder };
}

/** Starts a run with a new model or the loaded one, and saves what is needed to resume it. */
export async function newRun(
  { text: raw, rows, ...request }: StartRequest,
  { device, storage, loaded }: { readonly device: Device; readonly storage: Storage; readonly loaded?: Model },
): Promise<Run> {
  const text = raw.toWellFormed(), { seed, model: config, tuned } = request, generator = new RandomGenerator(seed);
  const tokenizer = loaded?.tokenizer ?? CharacterTokenizer.fromText(text);
  const model = loaded?.model ?? new GPT({ ...config, vocabSize: tokenizer.vocabSize }, { device, generator });
  const lora = tuned && tuned.rank > 0
    ? applyLora(model, { rank: tuned.rank, alpha: 2 * tuned.rank, seed })
    : undefined;
  const trained = lora && [...lora.namedParameters()].reduce((sum, [, { size }]) => sum + size, 0);
  const disk = loaded?.base, name = disk?.split("/").at(-1);
  const data = `saved/data/${rows?.path.split("/").at(-1) ?? "text.txt"}`;
  await storage.clear(
    TRAINED * CHECKPOINTS * (trained ?? model.numParameters()) + 4 * text.length + (rows?.file.size ?? 0) +
      (disk ? await sizeOf(disk) : 0),
  );
  await system.mkdir("saved/data", { recursive: true });
  await writeFile(data, rows ? [new Uint8Array(await rows.file.arrayBuffer())] : [new TextEncoder().encode(text)]);
  const base = disk && storage.unsaved === undefined ? `saved/base/${name}` : disk;
  if (disk && base !== disk) await copyFolder(disk, base!);
  const saved: SavedRequest = { ...request, data, base };
  const description = {
    flags: flagsOf(request),
    model: { ...model.config },
    vocabulary: tokenizer.toJSON(),
    ...lora && { base: { name: base!, identity: await identifyModel(base!) } satisfies RunBase },
  };
  const made = { model, tokenizer, base, lora, trained, generator };
  const folder = await RunFolder.create(RUN, description), run = await assemble(saved, made, folder);
  await writeJson(REQUEST, saved);
  return { ...run, history: [] };
}

/** Opens the run in the page's folder at its last checkpoint. */
export async function savedRun(
  { unsaved }: Storage,
  open: (choice: DeviceChoice) => Promise<Device>,
): Promise<Run> {
  if (unsaved !== undefined) throw new Error(`The saved run cannot be opened: ${unsaved}`);
  const saved = await readJson(REQUEST) as unknown as SavedRequest, { base, seed } = saved;
  const folder = await RunFolder.open(RUN), device = await open(saved.device), generator = new RandomGenerator(seed);
  const { model, tokenizer } = base ? await openModel(base, device) : {
    model: new GPT({ ...folder.description.model }, { device, initialize: false }),
    tokenizer: await tokenizerFromJSON(folder.description.vocabulary),
  };
  const lora = folder.description.base &&
    await folder.read("last", ({ folder }) => loadAdapter(folder, model, { trainable: true }));
  const trained = lora && [...lora.namedParameters()].reduce((sum, [, { size }]) => sum + size, 0);
  const run = await assemble(saved, { model, tokenizer, base, lora, trained, generator }, folder);
  await run.trainer.resume();
  return { ...run, history: (await readMetrics(folder.metricsPath)).map(eventOf) };
}

async function assemble(
  { data, tuned, seed, training, sampleLength }: SavedRequest,
  made: Model & Pick<Run, "lora" | "trained"> & { readonly generator: RandomGenerator },
  folder: RunFolder,
): Promise<Omit<Run, "history">> {
  const { model, tokenizer, lora, generator, base } = made;
  const text = async () => new TextDecoder().decode(await system.readFile(data));
  const context = { generator, folder, adapter: lora && trainedAdapter(lora, { base: base?.split("/").at(-1) }) };
  if (!tuned) {
    const splits = splitTokens(await text(), tokenizer, model.config);
    const trainer = new Trainer(model, splits, { ...training, ...context });
    return { ...made, trainer, tokens: [splits.train.length, splits.val.length], sampleLength, prompt: "" };
  }
  const how = { tokenizer, seed, context: Math.min(tuned.context, model.config.blockSize) };
  const rows = data.endsWith("/text.txt") ? rowsOfText(await text(), how) : await rowsOfFile(data, how);
  const task = new SupervisedTuning(model, rows, { batchSize: training.batchSize!, maxLength: how.context, seed });
  const evalIters = Math.min(MOST_BATCHES, task.microBatches("val"));
  const trainer = new Trainer(model, task, { ...training, evalIters, ...context });
  const { ids, learned } = rows.val.row(0), prompt = tokenizer.decode(ids.subarray(0, Math.max(0, learned.indexOf(1))));
  return { ...made, trainer, tokens: [rows.train.tokens, rows.val.tokens], sampleLength, prompt };
}

/** The training options for run.json, by the names of the commands' flags. */
function flagsOf({ seed, training }: Pick<StartRequest, "seed" | "training">): Record<string, unknown> {
  const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const options = Object.entries(training).map(([name, value]) => [snake(name), value]);
  return { seed, ...Object.fromEntries(options) };
}

/** Turns a line of metrics.jsonl back into the trainer's event. */
function eventOf(line: Metrics): TrainEvent {
  const { iter, loss, lr, grad_norm: gradNorm, ms, tokens_per_second: tokensPerSecond } = line;
  if ("val_loss" in line) {
    const { train_loss: trainLoss, val_loss: valLoss } = line;
    return { kind: "evaluation", iter, trainLoss, valLoss, measures: {}, best: false, sinceBest: 0 };
  }
  return { kind: "step", iter, loss, lr, gradNorm, ms, tokensPerSecond };
}
