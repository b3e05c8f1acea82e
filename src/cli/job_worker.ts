/**
 * The worker of one job. It carries out `train` or `finetune` in a run folder as the command line does, but sends
 * messages instead of printing lines. A job is therefore a run, and can be resumed like a run after its process was
 * killed.
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

/** The worker's global scope. TypeScript takes it for a window, which has no `postMessage` to a parent. */
const port = globalThis as unknown as {
  onmessage: ((event: MessageEvent<ToJob>) => void) | null;
  postMessage(message: FromJob): void;
};

/** The share of the free memory that a job may use. */
const MEMORY_SHARE = 0.8;
/** Milliseconds during which metrics are collected before they are sent. */
const TOGETHER = 100;

/** A report that sends messages to the server's thread instead of printing lines. */
class JobReport extends TrainReport {
  static trainer: Trainer | undefined;
  static saves = false;
  #total = 0;
  /**
   * Metrics to send, and the time of the last message. Metrics of fast updates are sent together, to relieve the
   * server's thread.
   */
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
    // A checkpoint has the weights and AdamW's two averages. There are up to three checkpoints while one is being
    // saved. At the end, the weights are stored twice more: as a model and as result files.
    const bytes = 3 * trained, needed = 3 * bytes + 2 * trained, left = availableBytes(this.order.folder) ?? Infinity;
    if (iter === 0 && left < needed) {
      throw new DeviceError(
        `The checkpoints of this job need ${mebibytes(needed)} on the disk, which has ${mebibytes(left)} left`,
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

  /** Called when training is done: saves the result in place of printing a sample. */
  override async sample(model: GPT, tokenizer: Tokenizer): Promise<void> {
    const iter = this.#total, files = await saveResult(this.order, iter, { model, tokenizer });
    port.postMessage({ kind: "done", iter, files });
  }
}

/** The bytes of memory that the job may use; undefined if the process has no permission to ask the system. */
function availableMemory(): number | undefined {
  const { state } = Deno.permissions.querySync({ name: "sys", kind: "systemMemoryInfo" });
  return state === "granted" ? MEMORY_SHARE * Deno.systemMemoryInfo().available : undefined;
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** An event as a line of metrics.jsonl; undefined for other events. */
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

/** The request that a command line with these flags would make. */
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
