/** `deno task train`: nanoGPT's train.py. What stands between the flags and the trainer; the printing is TrainReport's. */
import { RunFolder } from "../checkpoint/run_folder.ts";
import { loadData } from "../data/load_data.ts";
import { createDevice } from "../device/create.ts";
import type { Device } from "../engine/device.ts";
import { GPT, type GPTConfig } from "../gpt.ts";
import { type Pretrained, runTokenizer } from "../pretrained/load.ts";
import { Profile } from "../engine/profile.ts";
import { RandomGenerator } from "../random/mod.ts";
import { Trainer } from "../train/trainer.ts";
import { command, runCommand, type Running } from "./command.ts";
import { checkTraining } from "../train/memory.ts";
import { openRun } from "./run_model.ts";
import { checkPermission, reportDownload } from "./shared_flags.ts";
import {
  fineTunedValues,
  isPretrained,
  resumeCommand,
  resumedValues,
  trainDeclaration,
  type trainFlags,
  type TrainValues,
} from "./train_flags.ts";
import { encodeOptions } from "./tokenizer_flags.ts";
import { TrainReport } from "./train_report.ts";

export const train = command({
  ...trainDeclaration,
  async run(running) {
    const run = running.values.init_from === "resume" ? await openRun(running.values.out_dir) : undefined;
    const values = run ? resumedValues(running, run.description.flags) : running.values;
    checkPermission(values.device, "train");
    const report = new TrainReport(values, resumeCommand(running.args, values.out_dir), running.progress);
    await trainRun({ ...running, values }, run, report);
  },
});

/** @param run the run to go on with; without, a new one begins */
async function trainRun(
  request: Running<typeof trainFlags>,
  run: RunFolder | undefined,
  report: TrainReport,
): Promise<void> {
  const { threads } = request.values,
    device = await createDevice(request.values.device, { threads: threads || undefined });
  const start = isPretrained(request.values) ? await pretrained(request.values, device, report) : undefined;
  const values = report.values = start ? fineTunedValues(request, start.model.config) : request.values;
  const { input, dataset, block_size: blockSize, seed } = values;
  const loaded = await loadData({
    input: input || undefined,
    dataset,
    tokenizer: run ? await runTokenizer(run) : start?.tokenizer ?? (values.tokenizer || undefined),
    blockSize,
    special: encodeOptions(values.special_tokens),
    onNote: (line) => report.note(line),
  });
  const { data, tokenizer } = loaded;

  if (values.profile) device.profile = new Profile();
  // One generator draws weights, then batches, so that a seed gives nanoGPT's.
  const generator = new RandomGenerator(seed);
  const config = {
    ...(run ? run.description.model as Partial<GPTConfig> : start?.model.config), // what there are no flags for, too
    ...modelConfig(values),
    vocabSize: run ? Number(run.description.model.vocabSize) : start?.model.config.vocabSize ?? loaded.vocabSize,
  };
  if (!values.eval_only) await checkTraining(config, { ...optionsOf(values), device, model: start?.model });
  const model = start?.model ?? new GPT(config, { device, seed, generator });
  if (blockSize < model.config.blockSize) model.cropBlockSize(blockSize);
  const vocabulary = tokenizer.toJSON();
  // Where the grammar has stood in, a resume must not find another text, though the network be back.
  const { profile: _, ...lasting } = values;
  const flags = loaded.entropy === undefined ? lasting : { ...lasting, dataset: "grammar" };
  // An evaluation alone writes nothing.
  const folder = run ??
    (values.eval_only
      ? undefined
      : await RunFolder.create(values.out_dir, { flags, model: { ...config }, vocabulary }));
  using trainer = new Trainer(model, data, { ...optionsOf(values), generator, folder });
  if (run) {
    run.flags = flags;
    await trainer.resume();
  }
  report.begin({ ...loaded, model, iter: trainer.iter });

  const interrupt = request.interruption(() => report.interrupted());
  for await (const event of trainer.run({ signal: interrupt })) report.event(event);
  if (interrupt.aborted) {
    report.stopped(trainer.iter, folder?.last);
  } else {
    report.finished(folder?.last);
    if (!values.eval_only) await report.sample(model, tokenizer, interrupt);
  }
  if (device.profile) report.note(`\n${device.profile.table()}`);
  device.close();
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

if (import.meta.main) await runCommand(train);
