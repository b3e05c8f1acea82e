/**
 * The worker of one job: it carries out `train` or `finetune` as the command line does, in a run folder, and tells what happens by
 * messages instead of lines. So a job is a run like any other, and goes on after a kill as a run does.
 */
import { type Metrics, readMetrics } from "../checkpoint/metrics.ts";
import { RunFolder } from "../checkpoint/run_folder.ts";
import type { Device } from "../engine/device.ts";
import { DeviceError } from "../errors.ts";
import { exists } from "../files/files.ts";
import type { GPT } from "../gpt.ts";
import type { FromJob, JobOrder, ToJob } from "../server/job_messages.ts";
import { availableBytes, saveResult, takeCheckpoint } from "../server/job_folder.ts";
import { toWire } from "../server/messages.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { TrainEvent } from "../train/events.ts";
import type { Trainer } from "../train/trainer.ts";
import { jobConfigs } from "./jobs.ts";
import type { Declaration, Running } from "./command.ts";
import { finetuneDeclaration } from "./finetune_flags.ts";
import { runFinetune } from "./finetune_command.ts";
import { fallbacks, type FlagTable, type Values } from "./flags.ts";
import { openGrader } from "./rewards.ts";
import { Progress } from "./progress.ts";
import { runTrain } from "./train_command.ts";
import { trainDeclaration } from "./train_flags.ts";
import { TrainReport } from "./train_report.ts";

/** The worker's end of the channel, which TypeScript's types of a window do not have. */
const port = globalThis as unknown as {
  onmessage: ((event: MessageEvent<ToJob>) => void) | null;
  postMessage(message: FromJob): void;
};

/** Of the memory that is free, what a job may take. */
const MEMORY_SHARE = 0.8;
/** Milliseconds in which lines gather. */
const TOGETHER = 100;

/** Messages to the job's thread in place of lines. */
class JobReport extends TrainReport {
  static trainer: Trainer | undefined;
  static saves = false;
  #total = 0;
  /** Lines that were not sent yet, and when some were: of fast updates many go together, so that the server's thread stays free. */
  #lines: Metrics[] = [];
  #sent = -Infinity;
  #folder: RunFolder | undefined;

  constructor(readonly order: JobOrder, ...how: ConstructorParameters<typeof TrainReport>) {
    super(...how);
  }

  override readonly memory = availableMemory();

  override note(): void {}
  override resumed(): void {}

  override begin({ model, iter }: Parameters<TrainReport["begin"]>[0]): void {
    this.#total = this.values.max_iters;
    const trained = [...model.namedParameters({ trainable: true })].reduce((sum, [, { size }]) => sum + 4 * size, 0);
    // Of a checkpoint: with AdamW's averages. There are three while one is saved; then weights are a model, and result files.
    const bytes = 3 * trained, needed = 3 * bytes + 2 * trained, left = availableBytes(this.order.folder) ?? Infinity;
    if (iter === 0 && left < needed) {
      throw new DeviceError(
        `The checkpoints of this job take ${mebibytes(needed)} of the disk, and ${mebibytes(left)} are left`,
      );
    }
    port.postMessage({ kind: "begun", total: this.#total, bytes });
  }

  override async follow<T extends FlagTable>(
    trainer: Trainer,
    folder: RunFolder | undefined,
    { interruption }: Running<T>,
  ): Promise<AbortSignal> {
    const signal = interruption(() => {});
    this.#folder = folder;
    if (trainer.iter > 0) {
      port.postMessage({ kind: "metrics", lines: await readMetrics(folder!.metricsPath) });
      await this.#checkpoint(trainer.iter);
    }
    JobReport.trainer = trainer;
    for await (const event of trainer.run({ signal })) {
      const line = lineOf(event);
      if (line) this.#lines.push(line);
      if (performance.now() - this.#sent > TOGETHER) this.#flush();
      if (event.kind === "checkpoint") await this.#checkpoint(event.iter);
    }
    this.#flush();
    JobReport.trainer = undefined;
    if (signal.aborted) port.postMessage({ kind: "stopped", iter: trainer.iter });
    return signal;
  }
  #flush(): void {
    if (this.#lines.length > 0) port.postMessage({ kind: "metrics", lines: this.#lines });
    this.#lines = [];
    this.#sent = performance.now();
  }
  async #checkpoint(iter: number): Promise<void> {
    this.#flush();
    const asked = JobReport.saves;
    JobReport.saves = false;
    await takeCheckpoint(this.#folder!, this.order.folder, iter);
    port.postMessage({ kind: "checkpoint", iter, asked });
  }

  /** When all is trained. */
  override async sample(model: GPT, tokenizer: Tokenizer): Promise<void> {
    const iter = this.#total, files = await saveResult(this.order, iter, { model, tokenizer });
    port.postMessage({ kind: "done", iter, files });
  }
}

/** Undefined where the system may not be asked. Some is left for all else. */
function availableMemory(): number | undefined {
  const { state } = Deno.permissions.querySync({ name: "sys", kind: "systemMemoryInfo" });
  return state === "granted" ? MEMORY_SHARE * Deno.systemMemoryInfo().available : undefined;
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** As metrics.jsonl has it. */
function lineOf(event: TrainEvent): Metrics | undefined {
  if (event.kind === "evaluation") {
    const { iter, trainLoss, valLoss, measures } = event;
    return { iter, train_loss: trainLoss, val_loss: valLoss, ...measures };
  }
  if (event.kind !== "step") return undefined;
  const { iter, loss, lr, gradNorm, ms, tokensPerSecond, measures } = event;
  return { iter, loss, lr, grad_norm: gradNorm, ms, tokens_per_second: tokensPerSecond, ...measures };
}

const stop = new AbortController();

/** The command's request, as a command line would make it. */
function running<T extends FlagTable>(
  { flags, defaults, check }: Declaration<T>,
  named: JobOrder["values"],
  config?: Partial<Values<T>>,
): Running<T> {
  const given = named as Partial<Values<T>>;
  const values = { ...fallbacks(flags), ...defaults?.(given, config), ...config, ...given };
  check?.(values);
  const interruption = () => stop.signal;
  const progress = new Progress({ isTerminal: () => false, writeSync: ({ length }) => length });
  return { values, config: config ?? {}, given, words: [], args: [], progress, interruption };
}

async function start(order: JobOrder): Promise<void> {
  const { command, config, epochs, rate = 1, grader, folder } = order, out_dir = `${folder}/run`;
  const reporting = (...how: ConstructorParameters<typeof TrainReport>) => new JobReport(order, ...how);
  const goesOn = await exists(`${out_dir}/run.json`) && (await RunFolder.open(out_dir)).last !== undefined;
  const values = goesOn ? { init_from: "resume", out_dir } : { ...order.values, out_dir };
  if (command === "finetune") {
    const rewards = grader && ((device: Device) => openGrader(grader, device));
    return await runFinetune(running(finetuneDeclaration, values), reporting, { rewards });
  }
  if (goesOn) return await runTrain(running(trainDeclaration, values), reporting, { finalEvaluation: true });
  const named = config ? jobConfigs[config] : undefined, { learning_rate = 0, min_lr = 0 } = named ?? {};
  const rates = named && { ...named, learning_rate: learning_rate * rate, min_lr: min_lr * rate };
  await runTrain(running(trainDeclaration, values, rates), reporting, { finalEvaluation: true, epochs });
}

port.onmessage = ({ data: message }) => {
  if (message.kind === "save") {
    JobReport.saves = true;
    JobReport.trainer?.saveNext();
  } else if (message.kind === "stop") stop.abort();
  else {
    start(message.order).catch((error) => {
      if (stop.signal.aborted) port.postMessage({ kind: "stopped", iter: 0 });
      else port.postMessage({ kind: "failed", error: toWire(error) });
    });
  }
};
