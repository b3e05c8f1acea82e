/** `deno task train`: nanoGPT's train.py. What stands between the flags and the trainer; the printing is TrainReport's. */
import { RunFolder } from "../checkpoint/run_folder.ts";
import { loadData, type LoadedData } from "../data/load_data.ts";
import { createDevice, hasOption } from "../device/create.ts";
import type { Device } from "../engine/device.ts";
import { GPT, type GPTConfig } from "../gpt.ts";
import { type Pretrained, runTokenizer } from "../pretrained/load.ts";
import { Profile } from "../engine/profile.ts";
import { RandomGenerator } from "../random/mod.ts";
import { Trainer } from "../train/trainer.ts";
import { command, type Running } from "./command.ts";
import { checkTraining } from "../train/memory.ts";
import { openRun } from "./run_model.ts";
import { checkPermission, reportDownload } from "./shared_flags.ts";
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
import { encodeOptions } from "./tokenizer_flags.ts";
import { TrainReport } from "./train_report.ts";

type TrainRunning = Running<typeof trainFlags>;

export const train = command({
  ...trainDeclaration,
  async run(running) {
    using run = running.values.init_from === "resume" ? await openRun(running.values.out_dir) : undefined;
    const values = run ? resumedValues(running, run.description.flags) : { ...running.values, ...namedData(running) };
    checkPermission(values.device, "train");
    if (!values.eval_only) await run?.lock(); // before anything is read that another process may write
    const report = new TrainReport(values, resumeCommand(running.args, values.out_dir), running.progress);
    if (values.threads && running.given.threads === undefined && !hasOption(values.device, "threads")) {
      report.note(
        `--threads=${values.threads}, with which the run began, is left out: ${values.device} has no threads`,
      );
      values.threads = 0;
    }
    await trainRun({ ...running, values }, run, report);
  },
});

/** @param run the run to go on with; without, a new one begins */
async function trainRun(request: TrainRunning, run: RunFolder | undefined, report: TrainReport): Promise<void> {
  const { device: name, threads } = request.values,
    device = await createDevice(name, { threads: threads || undefined });
  const start = isPretrained(request.values) ? await pretrained(request.values, device, report) : undefined;
  const values = report.values = start ? fineTunedValues(request, start.model.config) : request.values;
  const loaded = await trainingData(request, { values, run, start, report });
  if (values.profile) device.profile = new Profile();
  // One generator draws weights, then batches, so that a seed gives nanoGPT's.
  const generator = new RandomGenerator(values.seed);
  const { model, config } = await modelToTrain(values, { run, start, device, generator, vocabSize: loaded.vocabSize });
  const folder = await runFolder(values, { run, config, loaded, report });
  using trainer = new Trainer(model, loaded.data, { ...optionsOf(values), generator, folder });
  const resumed = run && await trainer.resume({ onNote: (line) => report.note(line) });
  report.begin({ ...loaded, model, iter: trainer.iter });
  if (resumed) report.resumed(trainer, loaded.source, resumed);
  await trainThrough(trainer, { request, loaded, folder, report });
  if (device.profile) report.note(`\n${device.profile.table()}`);
  device.close();
}

/** What a run comes from: one that it goes on with, or a model from elsewhere, or neither. */
interface Origin {
  readonly run: RunFolder | undefined;
  readonly start?: Pretrained;
}

async function trainingData(
  request: TrainRunning,
  { values, run, start, report }: Origin & { values: TrainValues; report: TrainReport },
): Promise<LoadedData> {
  const { input, dataset, tokenizer, block_size: blockSize } = values;
  return await loadData({
    input: input || undefined,
    dataset,
    // The grammar stands in for a default alone: not for a text that was named, or that the run has begun with.
    standIn: !run && namedData(request).dataset === undefined,
    tokenizer: run ? await runTokenizer(run) : start?.tokenizer ?? (tokenizer || undefined),
    blockSize,
    special: encodeOptions(values.special_tokens),
    onNote: (line) => report.note(line),
  });
}

async function modelToTrain(
  values: TrainValues,
  { run, start, device, generator, vocabSize }: Origin & {
    device: Device;
    generator: RandomGenerator;
    vocabSize: number;
  },
): Promise<{ model: GPT; config: Partial<GPTConfig> & { vocabSize: number } }> {
  const { block_size: blockSize, seed } = values;
  const config = {
    ...(run ? run.description.model as Partial<GPTConfig> : start?.model.config), // what there are no flags for, too
    ...modelConfig(values),
    vocabSize: run ? Number(run.description.model.vocabSize) : start?.model.config.vocabSize ?? vocabSize,
  };
  if (!values.eval_only) await checkTraining(config, { ...optionsOf(values), device, model: start?.model });
  const model = start?.model ?? new GPT(config, { device, seed, generator });
  if (blockSize < model.config.blockSize) model.cropBlockSize(blockSize);
  return { model, config };
}

/** The folder of the run: a new one, or the run's own with the flags of now; none for an evaluation alone, which writes nothing. */
async function runFolder(
  values: TrainValues,
  { run, config, loaded, report }: Origin & { config: Partial<GPTConfig>; loaded: LoadedData; report: TrainReport },
): Promise<RunFolder | undefined> {
  const flags = lastingFlags(values, loaded);
  if (run) {
    run.flags = flags;
    return run;
  }
  if (values.eval_only) return undefined;
  const description = { flags, model: { ...config }, vocabulary: loaded.tokenizer.toJSON() };
  const folder = await RunFolder.create(values.out_dir, description);
  if (folder.renamed) report.note(`The older run in ${values.out_dir} is now in ${folder.renamed}`);
  return folder;
}

/** What run.json says: a resume, from whatever folder, finds the same text. */
function lastingFlags(
  { profile: _, ...flags }: TrainValues,
  { source, entropy }: Pick<LoadedData, "source" | "entropy">,
) {
  const absolute = (path: string) => /^([/\\]|[A-Za-z]:)/.test(path) ? path : `${Deno.cwd()}/${path}`;
  if (flags.input) return { ...flags, input: absolute(flags.input) };
  if (entropy !== undefined) return { ...flags, dataset: "grammar" }; // which may have stood in for want of a network
  // A name, of a folder in data/ or of a text, stays one.
  return source === flags.dataset ? { ...flags, dataset: absolute(source) } : flags;
}

/** Trains to the end, or to an interruption, and prints what happens. */
async function trainThrough(
  trainer: Trainer,
  { request, loaded, folder, report }: {
    request: TrainRunning;
    loaded: LoadedData;
    folder: RunFolder | undefined;
    report: TrainReport;
  },
): Promise<void> {
  const interrupt = request.interruption(() => report.interrupted());
  for await (const event of trainer.run({ signal: interrupt })) report.event(event);
  if (interrupt.aborted) return report.stopped(trainer.iter, folder?.last);
  report.finished(folder?.last);
  if (!report.values.eval_only) await report.sample(trainer.model, loaded.tokenizer, interrupt);
}

/** The model that a run begins with. */
async function pretrained(values: TrainValues, device: Device, report: TrainReport): Promise<Pretrained> {
  const { init_from, tokenizer, dropout } = values, { loadPretrained } = await import("../pretrained/load.ts");
  const onProgress = reportDownload(report.progress), onNote = (line: string) => report.note(line);
  return await loadPretrained(init_from, { device, tokenizer: tokenizer || undefined, dropout, onNote, onProgress });
}

export function modelConfig(values: TrainValues) {
  const { block_size: blockSize, n_layer: nLayer, n_head: nHead, n_embd: nEmbd, dropout, bias } = values;
  return { blockSize, nLayer, nHead, nEmbd, dropout, bias };
}

export function optionsOf(values: TrainValues) {
  return {
    batchSize: values.batch_size,
    gradientAccumulationSteps: values.gradient_accumulation_steps,
    maxIters: values.max_iters,
    evalInterval: values.eval_interval,
    evalIters: values.eval_iters,
    logInterval: values.log_interval,
    evalOnly: values.eval_only,
    alwaysSaveCheckpoint: values.always_save_checkpoint,
    learningRate: values.learning_rate,
    decayLr: values.decay_lr,
    warmupIters: values.warmup_iters,
    lrDecayIters: values.lr_decay_iters,
    minLr: values.min_lr,
    weightDecay: values.weight_decay,
    beta1: values.beta1,
    beta2: values.beta2,
    gradClip: values.grad_clip,
  };
}
