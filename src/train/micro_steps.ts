import { accumulate } from "../../kernels/accumulate/kernel.ts";
import { fill } from "../../kernels/fill/kernel.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Program } from "../engine/device.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { Breather } from "../loop/breather.ts";
import { Module } from "../nn/module.ts";
import { mul } from "../ops/mul.ts";
import { type BatchPass, BatchPasses } from "./batch_passes.ts";
import { type DrawOptions, lossOf, type Measures, type MicroBatch, type Task } from "./task.ts";

/**
 * The model and its task's parameters as one module, so that both are switched to evaluation together and captured
 * programs notice changes in either.
 */
export class Trained extends Module {
  readonly added: Module | undefined;

  constructor(readonly model: GPT, { module }: Task) {
    super();
    this.added = module;
  }
}

/**
 * Forward and backward passes over a task's micro-batches. The next micro-batch is drawn right after a pass is
 * launched. The first pass for each set of shapes is captured; later passes replay it.
 */
export class MicroSteps implements Disposable {
  readonly #passes: BatchPasses;
  readonly #breather = new Breather();
  /**
   * The micro-batch's weight in the loss of the update, from which backward starts: d(loss of the update) / d(loss of
   * the micro-batch).
   */
  #share: Tensor | undefined;
  #weight = NaN;
  /** Shape (1): the weighted sum of the micro-batches' losses in an update, if the task sets weights. */
  #sum: Tensor | undefined;
  /** One element per name in the task's `measures`: the weighted sum of each over the micro-batches of an update. */
  #measured: Tensor | undefined;
  #signal: AbortSignal | undefined;
  #batches: Iterator<MicroBatch> | AsyncIterator<MicroBatch> | undefined;
  /** The micro-batch that was drawn but not run yet. */
  #next: MicroBatch | undefined;

  constructor(readonly trained: Trained, readonly task: Task, readonly options: DrawOptions) {
    this.#passes = new BatchPasses(trained, trained.model.device);
  }

  /** Runs `body` in the idle memory of a captured pass, if there is one. Free its tensors before the next pass. */
  lend<T>(body: () => T): T {
    const program: Program | undefined = this.#passes.first?.captured.program;
    return program ? program.lend(body) : body();
  }
  /** Draws the first micro-batch of the next update, unless it was drawn already. */
  async prepare(): Promise<void> {
    if (!this.#next) await this.#draw();
  }
  /** Discards drawn micro-batches, because the task was restored to an earlier state. */
  reset(): void {
    this.#batches = this.#next = undefined;
  }

  /**
   * Adds the gradients of an update to the parameters' gradients.
   *
   * @returns `loss`: a tensor of one element with the weighted sum over the update if the task sets weights, otherwise
   *   the loss of the last micro-batch, as in train.py. `measured`: the task's measures over the update, one element
   *   each. A later update overwrites both tensors. `drawn`: measures known on the host. `tokens`: number of tokens in
   *   the update
   * @throws {DataError} when the task returns no batch, or an integer is outside its range
   */
  async run(signal?: AbortSignal): Promise<{ loss: Tensor; measured?: Tensor; drawn?: Measures; tokens: number }> {
    const { device } = this.trained.model, { measures } = this.task;
    let loss: Tensor | undefined, tokens = 0;
    this.#signal = signal;
    await this.prepare();
    if (measures?.length) launch(fill, { y: this.#measured ??= device.empty([measures.length]) }, { value: 0 });
    if (this.#sum) launch(fill, { y: this.#sum }, { value: 0 });
    for (let batch = this.#next; batch; batch = this.#next) {
      loss = this.#run(batch);
      tokens += Object.values(batch.arrays)[0].values.length;
      await this.#draw();
      await this.#breather.breathe();
    }
    if (!loss) throw new DataError("the task has given no batch for an update");
    const drawn = this.task.drawn?.();
    if (this.task.ahead) await this.prepare();
    return { loss, measured: this.#measured, drawn, tokens };
  }

  /**
   * Draws the next micro-batch of the update into `#next`, or sets it to undefined if there is none left. The call
   * after that draws for the next update.
   */
  async #draw(): Promise<void> {
    if (!this.#batches) {
      const drawn = this.task.draw({ ...this.options, signal: this.#signal });
      this.#batches = Symbol.asyncIterator in drawn ? drawn[Symbol.asyncIterator]() : drawn[Symbol.iterator]();
    }
    const { value, done } = await this.#batches.next();
    this.#next = done ? undefined : value;
    if (done) this.#batches = undefined;
  }

  #run({ arrays, weight }: MicroBatch): Tensor {
    const { model } = this.trained, { device, noise } = model;
    const { tensors, captured } = this.#passes.load(arrays), share = this.#share ??= device.empty([]);
    const part = weight ?? 1 / this.options.count;
    if (part !== this.#weight) device.write(share.storage, [this.#weight = part]);
    if (weight !== undefined) this.#sum ??= device.tensor([0], [1]);
    if (noise.used) noise.begin();
    const { program } = captured;
    program?.replay();
    const loss = program?.result ??
      captured.capture(device, () => noise.hold(() => this.#forwardBackward(tensors, share)));
    return this.#sum ?? loss;
  }

  #forwardBackward(tensors: BatchPass["tensors"], share: Tensor): Tensor {
    const { model } = this.trained;
    using scope = model.device.scope();
    const { loss, outputs } = lossOf(this.task.loss(model, tensors));
    loss.backward(share);
    if (this.#measured) launch(accumulate, { x: noGrad(() => mul(outputs!, share)), sum: this.#measured });
    if (this.#sum) launch(accumulate, { x: noGrad(() => mul(loss, share)).alias([1]), sum: this.#sum });
    return scope.keep(loss);
  }

  [Symbol.dispose](): void {
    this.#passes[Symbol.dispose]();
    this.#share?.dispose();
    this.#sum?.dispose();
    this.#measured?.dispose();
    this.#share = this.#sum = this.#measured = undefined;
    this.#weight = NaN;
  }
}
