/**
 * `deno task train`, nanoGPT's train.py: makes the model, the data and the trainer from the flags. TrainReport prints.
 */
import { type RunDescription, RunFolder } from "../checkpoint/run_folder.ts";
import { loadData, type LoadedData } from "../data/load_data.ts";
import { hasOption } from "../device/create.ts";
import type { Device } from "../engine/device.ts";
import { GPT, type GPTConfig } from "../gpt.ts";
import { loadPretrained, type Pretrained, runTokenizer } from "../pretrained/load.ts";
import { Profile } from "../engine/profile.ts";
import { RandomGenerator } from "../random/mod.ts";
import { TRAINER_OPTIONS, type TrainerOptions } from "../train/options.ts";
import { Trainer } from "../train/trainer.ts";
import { command, type Running } from "./command.ts";
import { checkTraining } from "../train/memory.ts";
import { flagOf } from "./flags.ts";
import { nativeFor } from "./native.ts";
import { openDevice, openRun } from "./run_model.ts";
import { checkPermission, encodeOptions, reportDownload } from "./shared_flags.ts";
import {
  fineTunedValues,
  isPretrained,
  namedData,
  resumeCommand,
  resumedValues,
  trainDeclaration,
  type trainFlags,
  type TrainValues,
} from "./train_flags.ts";
import { count } from "./progress.ts";
import { TrainReport } from "./train_report.ts";

type TrainRunning = Running<typeof trainFlags>;

export const train = command({
  ...trainDeclaration,
  run: (running) => runTrain(running, (...how) => new TrainReport(...how)),
});

/** Settings of a run for which there are no flags. */
interface More {
  /** Passes over the text, instead of `max_iters`. */ readonly epochs?: number;
  /** Whether to end with an evaluation after exactly `max_iters` updates. */ readonly finalEvaluation?: boolean;
}

/** Carries out `train`. @param reporting makes the report of the run */
export async function runTrain(
  running: TrainRunning,
  reporting: (...how: ConstructorParameters<typeof TrainReport>) => TrainReport,
  more: More = {},
): Promise<void> {
  using run = running.values.init_from === "resume" ? await openRun(running.values.out_dir) : undefined;
  const values = run ? resumedValues(running, run.description.flags) : { ...running.values, ...namedData(running) };
  checkPermission(values.device, "train");
  if (!values.eval_only) await run?.lock(); // before reading files that another process may write
  const words = resumeCommand(running.args, values.out_dir);
  const report = reporting(values, { task: "train", resumeCommand: words }, running.progress);
  leaveOutThreads(values, running.given, report);
  await trainRun({ ...running, values }, run, report, more);
}

/** Ignores a stored `--threads` if a run that began on the CPU is resumed on a device without threads. */
export function leaveOutThreads(
  values: Pick<TrainValues, "threads" | "device">,
  given: Partial<TrainValues>,
  report: TrainReport,
): void {
  if (!values.threads || given.threads !== undefined || hasOption(values.device, "threads")) return;
  report.note(`--threads=${values.threads}, with which the run began, is ignored: ${values.device} has no threads`);
  values.threads = 0;
}

/** @param run the run to resume; undefined begins a new run */
async function trainRun(
  request: TrainRunning,
  run: RunFolder | undefined,
  report: TrainReport,
  { epochs, finalEvaluation }: More,
): Promise<void> {
  const device = await openDevice(request.values, await nativeFor(request.values, (line) => report.note(line)));
  const start = isPretrained(request.values) ? await pretrained(request.values, device, report) : undefined;
  const values = report.values = start ? fineTunedValues(request, start.model.config) : request.values;
  const setup = { values, run, start, device, report };
  const loaded = await trainingData(request, setup);
  const tokens = values.gradient_accumulation_steps * values.batch_size * values.block_size;
  if (epochs) values.max_iters = values.lr_decay_iters = Math.ceil(epochs * loaded.data.train.length / tokens);
  if (values.profile) device.profile = new Profile();
  // One generator draws the weights and then the batches, so that a seed gives nanoGPT's weights and batches.
  const generator = new RandomGenerator(values.seed);
  const { model, config } = await modelToTrain(setup, { generator, vocabSize: loaded.vocabSize });
  const flags = lastingFlags(values, loaded), vocabulary = loaded.tokenizer.toJSON();
  const note = (line: string) => report.note(line);
  const folder = await runFolder(run, { flags, model: { ...config }, vocabulary }, { values, note });
  using trainer = new Trainer(model, loaded.data, { ...optionsOf(values), finalEvaluation, generator, folder });
  const resumed = run && await trainer.resume({ onNote: (line) => report.note(line) });
  const { source, data: { train, val }, entropy } = loaded;
  report.begin({
    model,
    iter: trainer.iter,
    data: `${source}: train has ${count(train.length)} tokens, val has ${count(val.length)} tokens`,
    update: `tokens per iteration will be: ${count(tokens)}`,
    entropy,
  });
  if (resumed) report.resumed(trainer, source, resumed);
  const interrupt = await report.follow(trainer, folder, request);
  if (!interrupt.aborted && !values.eval_only) await report.sample(model, loaded.tokenizer, interrupt);
  if (device.profile) report.note(`\n${device.profile.table()}`);
  device.close();
}

/** The parts from which a run is made. */
interface Setup {
  readonly values: TrainValues;
  /** The run to resume. */
  readonly run: RunFolder | undefined;
  /** The pretrained model to begin with. */
  readonly start: Pretrained | undefined;
  readonly device: Device;
  readonly report: TrainReport;
}

async function trainingData(request: TrainRunning, { values, run, start, report }: Setup): Promise<LoadedData> {
  const { input, dataset, tokenizer, block_size: blockSize } = values;
  return await loadData({
    input: input || undefined,
    dataset,
    // If the dataset cannot be downloaded, generated text replaces it, unless the user or a resumed run named the
    // dataset.
    standIn: !run && namedData(request).dataset === undefined,
    tokenizer: run ? await runTokenizer(run) : start?.tokenizer ?? (tokenizer || undefined),
    blockSize,
    special: encodeOptions(values.special_tokens),
    onNote: (line) => report.note(line),
  });
}

async function modelToTrain(
  { values, run, start, device, report: { memory } }: Setup,
  { generator, vocabSize }: { generator: RandomGenerator; vocabSize: number },
): Promise<{ model: GPT; config: Partial<GPTConfig> & { vocabSize: number } }> {
  const { block_size: blockSize, seed } = values;
  const config = {
    ...(run ? run.description.model as Partial<GPTConfig> : start?.model.config), // with fields that have no flags
    ...modelConfig(values),
    vocabSize: run ? Number(run.description.model.vocabSize) : start?.model.config.vocabSize ?? vocabSize,
  };
  if (!values.eval_only) await checkTraining(config, { ...optionsOf(values), device, memory, model: start?.model });
  const model = start?.model ?? new GPT(config, { device, seed, generator });
  if (blockSize < model.config.blockSize) model.cropBlockSize(blockSize);
  return { model, config };
}

/**
 * The run folder to write to: a new one, or that of the resumed run with the current flags; undefined with
 * `--eval_only`, which writes nothing.
 */
export async function runFolder(
  run: RunFolder | undefined,
  description: RunDescription,
  { values: { out_dir, eval_only }, note }: {
    readonly values: Pick<TrainValues, "out_dir" | "eval_only">;
    readonly note: (line: string) => void;
  },
): Promise<RunFolder | undefined> {
  if (run) {
    run.flags = description.flags;
    return run;
  }
  if (eval_only) return undefined;
  const folder = await RunFolder.create(out_dir, description);
  if (folder.renamed) note(`The older run in ${out_dir} was moved to ${folder.renamed}`);
  return folder;
}

/** The flags for run.json, with absolute paths, so that the run can be resumed from any folder. */
function lastingFlags(
  { profile: _, native: __, ...flags }: TrainValues,
  { source, entropy }: Pick<LoadedData, "source" | "entropy">,
) {
  if (flags.input) return { ...flags, input: absolute(flags.input) };
  if (entropy !== undefined) return { ...flags, dataset: "grammar" }; // generated text may have replaced another dataset
  // The name of a folder in data/ or of a known text is stored as it is.
  return source === flags.dataset ? { ...flags, dataset: absolute(source) } : flags;
}

/** Makes a path absolute. */
export const absolute = (path: string): string => /^([/\\]|[A-Za-z]:)/.test(path) ? path : `${Deno.cwd()}/${path}`;

/** Loads the model that `--init_from` names. */
async function pretrained(values: TrainValues, device: Device, report: TrainReport): Promise<Pretrained> {
  const { init_from, tokenizer, dropout, seed } = values;
  const onProgress = reportDownload(report.progress), onNote = (line: string) => report.note(line);
  const options = { device, tokenizer: tokenizer || undefined, dropout, seed, trainable: !values.eval_only };
  return await loadPretrained(init_from, { ...options, onNote, onProgress });
}

export function modelConfig(values: TrainValues) {
  const { block_size: blockSize, n_layer: nLayer, n_head: nHead, n_embd: nEmbd, dropout, bias } = values;
  return { blockSize, nLayer, nHead, nEmbd, dropout, bias };
}

/** The trainer's options: each option has a flag of the same name. */
export function optionsOf(values: Readonly<Record<string, unknown>>): TrainerOptions {
  return Object.fromEntries(TRAINER_OPTIONS.map((name) => [name, values[flagOf(name)]])) as unknown as TrainerOptions;
}
