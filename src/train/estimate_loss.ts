import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { DataError } from "../errors.ts";
import { Breather } from "../loop/breather.ts";
import { Pace } from "../loop/pace.ts";
import { evaluating } from "../nn/module.ts";
import { typeOf } from "./batch_passes.ts";
import type { Trained } from "./micro_steps.ts";
import { type DrawOptions, lossOf, type Measures, type MicroBatch, namedMeasures, type Task } from "./task.ts";

/** Milliseconds between two waits for the device. */
const PACE = 300;

/** Options of an evaluation; `count` is the number of batches per split. */
export interface EstimateOptions extends DrawOptions {
  /** Runs each forward pass in memory of the training step, which is idle during the evaluation. */
  readonly lend: <T>(body: () => T) => T;
  /** Aborts the evaluation before its next batch. */
  readonly signal?: AbortSignal;
}

/** The result of an evaluation for one split. */
export interface Estimate {
  /** The mean loss. */ readonly loss: number;
  /** The task's own measures. */ readonly measures: Measures;
}

/** A batch whose forward pass was launched. */
interface Judged {
  readonly split: "train" | "val";
  readonly weight: number;
  readonly loss: Tensor;
  readonly outputs?: Tensor;
  /** Stored only if the task returns outputs, from which its measures are computed. */
  readonly batch?: MicroBatch;
}

/**
 * Computes a batch's loss and outputs, without dropout and without recording gradients. The caller disposes of both.
 */
export function judgeBatch(
  trained: Trained,
  task: Task,
  { arrays }: Pick<MicroBatch, "arrays">,
): { loss: Tensor; outputs?: Tensor } {
  const { model } = trained, { device } = model, tensors: Record<string, Tensor> = {};
  using scope = device.scope();
  for (const [name, array] of Object.entries(arrays)) {
    tensors[name] = device.tensor(array.values, array.shape, { dtype: typeOf(array) });
  }
  const judge = () => lossOf(task.judge?.(model, tensors) ?? task.loss(model, tensors));
  const { loss, outputs } = evaluating(trained, () => noGrad(judge));
  return { loss: scope.keep(loss), outputs: outputs && scope.keep(outputs) };
}

/**
 * Computes the model's mean loss over the task's batches of both splits, without dropout: nanoGPT's `estimate_loss`.
 * Yields the number of finished batches after each of them.
 *
 * @returns the mean loss of each split (nats per token in language modelling); undefined if `signal` aborted, in which
 *   case the generator is restored
 */
export async function* estimateLoss(
  trained: Trained,
  task: Task,
  { count, generator, lend, signal }: EstimateOptions,
): AsyncGenerator<{ done: number; total: number }, Record<"train" | "val", Estimate> | undefined, void> {
  const { device } = trained.model, breather = new Breather(), pace = new Pace(PACE);
  const before = generator.getState(), judged: Judged[] = [];
  let complete = false, ahead = 0;

  try {
    for (const split of ["train", "val"] as const) {
      for await (const batch of task.evaluate(split, { count, generator, signal })) {
        const { loss, outputs } = lend(() => judgeBatch(trained, task, batch));
        judged.push({ split, weight: batch.weight ?? 1, loss, outputs, batch: outputs && batch });
        if (!device.readsAtOnce && ++ahead >= pace.steps) {
          await loss.item(); // bounds the launches in flight: an interruption does not wait for hundreds of batches
          pace.waited();
          ahead = 0;
        } else device.flush();
        yield { done: judged.length, total: 2 * count };
        await breather.breathe();
        if (signal?.aborted) return;
      }
    }
    // Reads all losses in one wait.
    const losses = await Promise.all(judged.map(({ loss }) => loss.item()));
    const outputs = await Promise.all(judged.map(({ outputs }) => outputs?.data()));
    const mean = (of: "train" | "val"): Estimate => {
      let sum = 0, weights = 0;
      const measures: Record<string, number> = {};
      for (const [i, { split, weight, batch }] of judged.entries()) {
        if (split !== of) continue;
        [sum, weights] = [sum + weight * losses[i], weights + weight];
        const found = batch ? task.measure?.(outputs[i]!, batch) ?? namedMeasures(task.measures, outputs[i]) : {};
        for (const [name, value] of Object.entries(found)) measures[name] = (measures[name] ?? 0) + weight * value;
      }
      if (weights === 0) throw new DataError(`the task has given no batch to evaluate ${of} on`);
      for (const name of Object.keys(measures)) measures[name] /= weights;
      return { loss: sum / weights, measures: task.conclude?.(measures) ?? measures };
    };
    complete = true;
    return { train: mean("train"), val: mean("val") };
  } finally {
    if (!complete) generator.setState(before);
    for (const { loss, outputs } of judged) {
      loss.dispose();
      outputs?.dispose();
    }
  }
}
