/**
 * The training loop of nanoGPT's train.py, as a library: it prints nothing and yields events.
 *
 * Each iteration evaluates the model if an evaluation is due, then makes one update. The task (task.ts) supplies
 * batches and loss; if the trainer is given a text's tokens, the task is language modelling. The next batch is drawn
 * right after the forward pass of each micro-step, from the generator that drew the weights, so a seed gives nanoGPT's
 * batches.
 *
 * Differences from train.py, on purpose: a worse checkpoint never overwrites the best one; `evalOnly` also stops a
 * resumed run; a resumed run continues bit for bit (train.py draws different batches); and a run that ends between two
 * evaluations saves its last state.
 *
 * @module
 */
import { ADAPTER_WEIGHTS, type TrainedAdapter } from "../checkpoint/adapter.ts";
import type { Checkpoint } from "../checkpoint/checkpoint_folder.ts";
import type { RunFolder } from "../checkpoint/run_folder.ts";
import { copies, loadTensors, type NamedTensors, sources } from "../checkpoint/tensors.ts";
import type { TokenSplits } from "../data/split.ts";
import { CheckpointError, ConfigError, DeviceError, TrainingError } from "../errors.ts";
import { owned } from "../files/files.ts";
import { completeConfig, type GPT, type GPTConfig } from "../gpt.ts";
import { Captured } from "../nn/captured.ts";
import { AdamW, type NamedParameter } from "../optim/adamw.ts";
import { learningRate } from "../optim/schedule.ts";
import { RandomGenerator } from "../random/mod.ts";
import { estimateLoss } from "./estimate_loss.ts";
import type { TrainEvent } from "./events.ts";
import { LateLosses } from "./late_losses.ts";
import { LanguageModelling } from "./language_modelling.ts";
import { MicroSteps, Trained } from "./micro_steps.ts";
import { type TrainerOptions, trainerOptions } from "./options.ts";
import { type Measures, namedMeasures, type Task } from "./task.ts";
import { parseState, type TrainerState } from "../checkpoint/trainer_state.ts";

/** The task of a checkpoint that does not name one. */
const DEFAULT_TASK = { name: "language modelling" };

/** The objects that a trainer works with, besides its {@linkcode TrainerOptions}. */
export interface TrainerContext {
  /**
   * Draws the batches. Pass the generator that drew the weights to get nanoGPT's batches. Default: seeded with 1337.
   */
  readonly generator?: RandomGenerator;
  /** Receives checkpoints and metrics. Default: nothing is saved. */
  readonly folder?: RunFolder;
  /** The machine's peak in FLOP/s, from which `mfu` is computed. */
  readonly peakFlops?: number;
  /** An adapter on the model: checkpoints store it in place of the model's weights. Default: the weights are saved. */
  readonly adapter?: TrainedAdapter;
  /** Seconds between copies of the training state to the host, which are saved if the GPU is lost. Default: 30. */
  readonly keepInterval?: number;
}

/**
 * Trains a model as in nanoGPT's train.py, and yields events.
 * @example
 * ```ts
 * import { createDevice, RandomGenerator, GPT, Trainer } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 }), generator = new RandomGenerator(1337);
 * const model = new GPT({ vocabSize: 4, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device, generator });
 * const tokens = Int32Array.from({ length: 400 }, (_, i) => i % 4);
 * const sizes = { batchSize: 4, gradientAccumulationSteps: 1, maxIters: 60, evalIters: 2, evalInterval: 60, logInterval: 20 };
 * const rate = { learningRate: 1e-2, warmupIters: 10, decayLr: false };
 * const trainer = new Trainer(model, { train: tokens, val: tokens }, { ...sizes, ...rate, generator });
 * for await (const event of trainer.run()) {
 *   if (event.kind === "step") console.log(event.iter, event.loss); // falls from ln 4 = 1.39
 * }
 * device.close();
 * ```
 */
export class Trainer implements Disposable {
  /** The options, with defaults filled in. */ readonly options: TrainerOptions;
  /** Supplies batches and loss. */ readonly task: Task;
  /** Updates all trainable parameters. */ readonly optimizer: AdamW;
  readonly #trained: Trained;
  readonly #generator: RandomGenerator;
  readonly #folder: RunFolder | undefined;
  readonly #adapter: TrainedAdapter | undefined;
  readonly #peakFlops: number | undefined;
  readonly #microSteps: MicroSteps;
  /** Clips gradients, applies AdamW and sets gradients to zero: captured in the first update, then replayed. */
  readonly #update: Captured<undefined>;
  /** Losses of updates that were launched but not read yet. */
  readonly #losses = new LateLosses();
  #iter = 0;
  #evaluated = false;
  #bestValLoss: number | null = null;
  #sinceBest = 0;
  /** The iteration of the last checkpoint; −1 if there is none. */
  #saved = -1;
  #saveAsked = false;
  readonly #keepInterval: number;
  /** The latest copy of the training state from the GPU. */
  #kept: Checkpoint | undefined;
  /** Time at which `#kept` was copied. */
  #keptAt = performance.now();
  /**
   * How many updates, from the first one, are known to be finite: their losses were read, or a checkpoint holds them.
   */
  #checked = 0;
  /** Identifies the task's data. Cached, because the checksum reads much of a text. */
  #identity: ReturnType<NonNullable<Task["identity"]>> | undefined;

  /**
   * Creates a trainer at iteration 0.
   * @param data a text's tokens for language modelling, or a task
   * @throws {ConfigError} when an option is out of its range, or no parameter is trainable
   * @throws {DeviceError} when the optimizer does not fit into memory; everything allocated before is freed
   */
  constructor(
    readonly model: GPT,
    data: TokenSplits | Task,
    { generator, folder, peakFlops, adapter, keepInterval = 30, ...options }: Partial<TrainerOptions> & TrainerContext,
  ) {
    this.options = trainerOptions(options);
    this.task = "loss" in data ? data : new LanguageModelling(model, data, this.options);
    this.#generator = generator ?? new RandomGenerator(1337);
    this.#folder = folder;
    this.#adapter = adapter;
    this.#peakFlops = peakFlops;
    this.#keepInterval = keepInterval;
    this.#trained = new Trained(model, this.task);
    this.#update = new Captured(this.#trained);
    const { weightDecay, learningRate, beta1, beta2, gradientAccumulationSteps: count } = this.options;
    const rates = { weightDecay, learningRate, betas: [beta1, beta2] } as const;
    this.optimizer = this.task.configureOptimizers?.(model, rates) ??
      new AdamW([...model.namedParameters({ trainable: true }), ...this.#added({ trainable: true })], rates);
    this.#microSteps = new MicroSteps(this.#trained, this.task, { count, generator: this.#generator });
  }

  /** The task's parameters. The prefix `task.` keeps their names apart from the model's. */
  #added(options?: { readonly trainable?: boolean }): NamedParameter[] {
    return [...this.task.module?.namedParameters(options) ?? []].map(([name, one]) => [`task.${name}`, one]);
  }

  /** The next iteration, which equals the number of updates made so far. */
  get iter(): number {
    return this.#iter;
  }

  /** Makes {@linkcode run} save a checkpoint after the next update. */
  saveNext(): void {
    this.#saveAsked = true;
  }

  /** Everything besides tensors that is needed to continue bit for bit. Does not advance the generator. */
  state(): TrainerState {
    return {
      iter: this.#iter,
      evaluated: this.#evaluated,
      bestValLoss: this.#bestValLoss,
      ...(this.options.patience > 0 && { sinceBest: this.#sinceBest }),
      generator: this.#generator.getState(),
      ...this.task.state(),
      dropoutPasses: this.model.noise.passes,
      optimizerSteps: this.optimizer.t,
      ...(this.task.config && { task: this.task.config }),
    };
  }

  /**
   * Restores the folder's last checkpoint: weights, optimizer, generator and the batch drawn ahead. If the data differ
   * from the data of the folder's run, its best validation loss no longer counts, and an evaluation that the resumed
   * iteration had already is repeated.
   *
   * @param options.onNote called with a line about tensors in the checkpoint that the model does not use
   * @returns whether the data differ from the data that the folder's run was trained on
   * @throws {CheckpointError} when there is no checkpoint, it is damaged, or it belongs to a different model or task
   */
  async resume({ onNote = () => {} }: { onNote?: (line: string) => void } = {}): Promise<{ otherData: boolean }> {
    const folder = this.#folder;
    if (!folder) throw new ConfigError("resume: the trainer has no folder");
    if (!this.options.evalOnly) await folder.lock();
    return await owned(folder, () => this.#resume(folder, onNote));
  }

  async #resume(folder: RunFolder, onNote: (line: string) => void): Promise<{ otherData: boolean }> {
    const { config, noise } = this.model;
    const saved = completeConfig(folder.description.model);
    for (const name of Object.keys(config) as (keyof GPTConfig)[]) {
      const value = config[name], there = saved[name];
      if (name === "dropout" || there === value) continue; // dropout has no weights, so it may change
      throw new CheckpointError(`${folder.path} is of another model: its ${name} is ${there}, expected ${value}`);
    }
    const state = await folder.read("last", async (checkpoint) => {
      const path = `${folder.path}/${checkpoint.name}/state.json`, state = parseState(path, checkpoint.state);
      checkTask(path, state.task ?? DEFAULT_TASK, this.task.config ?? DEFAULT_TASK);
      this.task.restore(checkpoint.state, path);
      const weights = `${checkpoint.folder}/${ADAPTER_WEIGHTS}`;
      if (this.#adapter) await loadTensors(weights, this.#adapter.namedParameters());
      else await loadTensors(checkpoint.model, this.model.namedParameters(), { onNote });
      if (this.task.module) await loadTensors(checkpoint.task, this.#added());
      await loadTensors(checkpoint.optimizer, this.optimizer.namedState());
      return state;
    });
    if (state.generator) this.#generator.setState(state.generator);
    noise.passes = state.dropoutPasses;
    this.optimizer.t = state.optimizerSteps;
    this.#microSteps.reset();
    this.#iter = this.#saved = this.#checked = state.iter;
    const otherData = folder.data !== undefined &&
      JSON.stringify(folder.data) !== JSON.stringify(this.#identity ??= this.task.identity?.());
    if (otherData) folder.forgetBest();
    this.#evaluated = state.evaluated && !otherData;
    this.#bestValLoss = otherData ? null : state.bestValLoss;
    this.#sinceBest = otherData ? 0 : state.sinceBest ?? 0;
    if (!this.options.evalOnly) await folder.resume(state.iter, { evaluated: this.#evaluated });
    return { otherData };
  }

  /**
   * Trains until `maxIters` is reached, `patience` runs out or `signal` aborts. An aborted run stops between two
   * updates, is saved and can be resumed. The lock on the folder is released at the end.
   *
   * @throws {TrainingError} when a loss is not finite, in which case no checkpoint holds the diverged state; or when
   *   the task cannot continue, in which case the run is saved first
   * @throws {CheckpointError} when a checkpoint or the metrics cannot be written
   * @throws {DeviceError} when the device fails or is lost; the latest copy of its state on the host is saved first
   */
  async *run({ signal }: { signal?: AbortSignal } = {}): AsyncGenerator<TrainEvent, void, void> {
    try {
      yield* this.#run(signal);
    } catch (error) {
      if (!(error instanceof DeviceError) || !this.#kept || this.#kept.iter <= this.#saved) throw error;
      await this.#folder!.save(this.#kept, { best: false });
      throw new DeviceError(
        `${error.message}\nThe state of iteration ${this.#kept.iter} has been saved and can be resumed`,
      );
    } finally {
      this.#folder?.[Symbol.dispose]();
    }
  }

  async *#run(signal?: AbortSignal): AsyncGenerator<TrainEvent, void, void> {
    const { maxIters, evalInterval, evalOnly, finalEvaluation, patience } = this.options;
    this.#trained.train();
    if (this.task.ahead) await this.#microSteps.prepare(); // train.py draws the first batch before it evaluates
    if (evalOnly) return void (yield* this.#evaluate(signal));
    await this.#folder?.lock();
    if (this.#folder) this.#folder.data = this.#identity ??= this.task.identity?.();
    let over = false;
    while (this.#iter <= maxIters && !over) {
      const last = finalEvaluation && this.#iter === maxIters;
      if ((last || this.#iter % evalInterval === 0) && !this.#evaluated) {
        yield* this.#report();
        yield* this.#evaluate(signal);
      }
      over = last || signal?.aborted === true || patience > 0 && this.#sinceBest >= patience;
      if (over) break;
      yield* this.#step(signal);
      if (this.#saveAsked && this.#saved < this.#iter) {
        yield* this.#report();
        this.#saveAsked = false;
        yield* this.#save({ best: false });
      }
    }
    yield* this.#report(); // throws if a loss is not finite, before anything is saved
    // train.py makes one more update after it has evaluated and saved iteration maxIters, and does not save that update.
    const due = over || maxIters % evalInterval !== 0 ? this.#iter : maxIters;
    if (this.#iter > 0 && this.#saved < due) yield* this.#save({ best: false });
  }

  /** Evaluates, and saves a checkpoint if one is due. An interrupted evaluation changes nothing. */
  async *#evaluate(signal?: AbortSignal): AsyncGenerator<TrainEvent, void, void> {
    const { evalIters: count, evalOnly, alwaysSaveCheckpoint } = this.options, iter = this.#iter;
    const lend = <T>(body: () => T) => this.#microSteps.lend(body), generator = this.#generator;
    const batches = estimateLoss(this.#trained, this.task, { count, generator, lend, signal });
    let result;
    try {
      for (result = await batches.next(); !result.done; result = await batches.next()) {
        yield { kind: "evaluating", iter, ...result.value };
      }
    } catch (error) {
      if (signal?.aborted && error === signal.reason) return;
      return yield* this.#failed(error);
    } finally {
      await batches.return(undefined); // frees its tensors if the caller stops reading events
    }
    if (!result.value) return;
    const { train, val } = result.value, [trainLoss, valLoss] = [train.loss, val.loss];
    const measures = { ...named("train", train.measures), ...named("val", val.measures) };
    const best = valLoss < (this.#bestValLoss ?? Infinity);
    if (!Number.isFinite(trainLoss + valLoss)) throw await this.#diverged(`The loss is ${trainLoss + valLoss}`, iter);
    if (!evalOnly) await this.#folder?.log({ iter, train_loss: trainLoss, val_loss: valLoss, ...measures });
    if (best) this.#bestValLoss = valLoss;
    this.#sinceBest = best ? 0 : this.#sinceBest + 1;
    this.#evaluated = true;
    yield { kind: "evaluation", iter, trainLoss, valLoss, measures, best, sinceBest: this.#sinceBest };
    if (iter > 0 && !evalOnly && (best || alwaysSaveCheckpoint)) yield* this.#save({ best });
  }

  /** Makes one update. */
  async *#step(signal?: AbortSignal): AsyncGenerator<TrainEvent, void, void> {
    const { gradClip, logInterval } = this.options, iter = this.#iter, back = this.#place();
    const { optimizer, model: { device } } = this, lr = learningRate(iter, this.options);
    if (!this.model.training) this.#trained.train(); // the caller may have generated a sample in evaluation mode
    this.#losses.begin();
    optimizer.prepare({ learningRate: lr, gradClip });
    let made;
    try {
      made = await this.#microSteps.run(signal);
    } catch (error) {
      back?.();
      if (signal?.aborted && error === signal.reason) return;
      return yield* this.#failed(error);
    }
    const { program } = this.#update; // the first update is captured as a program, which later updates replay
    if (program) program.replay();
    else {
      this.#update.capture(device, () => {
        optimizer.update();
        optimizer.zeroGrad();
        return undefined;
      });
    }
    device.flush();
    this.#losses.add({ iter, lr, ...made, gradNorm: optimizer.gradNorm, logged: iter % logInterval === 0 });
    this.#iter++;
    this.#evaluated = false;
    if (this.#losses.due) yield* this.#report();
  }

  /**
   * Remembers the state before an update, because drawing its batches can fail or be interrupted.
   *
   * @returns a function that restores this state; undefined if the task draws ahead, because its draws never stop
   *   midway
   */
  #place(): (() => void) | undefined {
    if (this.task.ahead) return undefined;
    const generator = this.#generator.getState(),
      { optimizer, model: { noise } } = this,
      { t } = optimizer,
      { passes } = noise;
    return () => {
      this.#microSteps.reset();
      this.#generator.setState(generator);
      noise.passes = passes;
      optimizer.t = t;
      optimizer.zeroGrad();
    };
  }

  /** Called when the task cannot continue: saves the run if it is not saved yet, and throws. */
  async *#failed(error: unknown): AsyncGenerator<TrainEvent, void, void> {
    if (!(error instanceof TrainingError)) throw error;
    yield* this.#report();
    if (!this.options.evalOnly && this.#iter > 0 && this.#saved < this.#iter) yield* this.#save({ best: false });
    const kept = await this.#folder?.kept() ?? "no checkpoint was saved yet";
    throw new TrainingError(`${error.message}\nTraining has stopped at iteration ${this.#iter}, and ${kept}`);
  }

  /** Reads the losses of the latest updates and yields them. @throws {TrainingError} when a number is not finite */
  async *#report(): AsyncGenerator<TrainEvent, void, void> {
    for (const { iter, lr, logged, loss, gradNorm, measured, drawn, ms, tokens } of await this.#losses.read()) {
      if (!Number.isFinite(loss)) throw await this.#diverged(`The loss is ${loss}`, iter);
      if (!Number.isFinite(gradNorm)) throw await this.#diverged(`The gradients' norm is ${gradNorm}`, iter);
      this.#checked = iter + 1;
      if (!logged) continue;
      const tokensPerSecond = tokens / ms * 1000, sequences = tokens / this.model.config.blockSize;
      const measures = { ...namedMeasures(this.task.measures, measured), ...drawn },
        more = Object.keys(measures).length > 0;
      const line = { iter, loss, lr, grad_norm: gradNorm, ms, tokens_per_second: tokensPerSecond, ...measures };
      await this.#folder?.log(line);
      const mfu = this.#peakFlops &&
        this.model.estimateMfu({ sequences, seconds: ms / 1000, peakFlops: this.#peakFlops });
      yield {
        kind: "step",
        iter,
        loss,
        lr,
        gradNorm,
        ms,
        tokensPerSecond,
        ...(mfu && { mfu }),
        ...(more && { measures }),
      };
    }
    if (!this.#folder || this.model.device.readsAtOnce || this.#iter <= this.#saved) return;
    if (performance.now() - this.#keptAt < 1000 * this.#keepInterval) return;
    this.#kept = await this.#checkpoint();
    this.#keptAt = performance.now();
  }

  /** Everything that a checkpoint stores. */
  async #checkpoint(): Promise<Checkpoint> {
    const read = async (tensors: NamedTensors) =>
      this.model.device.readsAtOnce ? sources(tensors) : await copies(tensors);
    const state = { ...this.state() }, iter = this.#iter, adapter = this.#adapter;
    const [weights, optimizer, task] = await Promise.all([
      read((adapter ?? this.model).namedParameters()),
      read(this.optimizer.namedState()),
      this.task.module && read(this.#added()),
    ]);
    return {
      iter,
      ...adapter ? { adapter: { config: adapter.config, tensors: weights } } : { model: weights },
      optimizer,
      state,
      task,
    };
  }

  async #diverged(what: string, iter: number): Promise<TrainingError> {
    const when = this.#checked < iter ? `${this.#checked} to ${iter}` : iter;
    const kept = await this.#folder?.kept() ?? "no checkpoint was saved yet";
    const hint = "A lower learning rate, a longer warm-up or clipped gradients may help";
    return new TrainingError(`${what} at iteration ${when}: training has stopped, and ${kept}\n${hint}`);
  }

  async *#save({ best }: { best: boolean }): AsyncGenerator<TrainEvent, void, void> {
    const folder = this.#folder, iter = this.#iter;
    if (!folder) return;
    await folder.save(await this.#checkpoint(), { best });
    this.#saved = iter;
    yield { kind: "checkpoint", iter, name: folder.last!, best };
  }

  /** Frees the optimizer and the buffers and unlocks the folder. The model and the task's parameters are not freed. */
  dispose(): void {
    this.#losses[Symbol.dispose]();
    this.#update[Symbol.dispose]();
    this.#microSteps[Symbol.dispose]();
    this.optimizer.dispose();
    this.#folder?.[Symbol.dispose]();
  }
  /** Calls {@linkcode dispose}. */ [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The measures of a split, under their names in metrics.jsonl, such as `val_accuracy`. */
const named = (split: string, measures: Measures): Measures =>
  Object.fromEntries(Object.entries(measures).map(([name, value]) => [`${split}_${name}`, value]));

/** @throws {CheckpointError} when a checkpoint's task differs from the trainer's, in its name or in a setting */
function checkTask(
  path: string,
  saved: Readonly<Record<string, unknown>>,
  own: Readonly<Record<string, unknown>>,
): void {
  const differs = (name: string) => JSON.stringify(saved[name]) !== JSON.stringify(own[name]); // labels are an array
  const name = Object.keys({ ...own, ...saved }).find(differs);
  if (name) {
    throw new CheckpointError(`${path} is of another task: its ${name} is ${saved[name]}, expected ${own[name]}`);
  }
}
