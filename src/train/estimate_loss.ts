import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { DataError } from "../errors.ts";
import { Breather } from "../loop/breather.ts";
import { Pace } from "../loop/pace.ts";
import { evaluating } from "../nn/module.ts";
import { type Trained, typeOf } from "./micro_steps.ts";
import type { DrawOptions, MicroBatch, Task } from "./task.ts";

/** Milliseconds from one wait for the device to the next. */
const PACE = 300;

/** `count`: batches of each split. */
export interface EstimateOptions extends DrawOptions {
  /** Runs each forward pass, in memory that is free until the evaluation ends. */
  readonly lend: <T>(body: () => T) => T;
  /** Gives up before the next batch. */
  readonly signal?: AbortSignal;
}

/**
 * The model's mean loss on the task's batches of both splits, without dropout: nanoGPT's `estimate_loss`. It yields after every
 * batch how many of them are done.
 *
 * @returns nats a token in language modelling; nothing where it was given up: then the generator is where it was before
 */
export async function* estimateLoss(
  trained: Trained,
  task: Task,
  { count, generator, lend, signal }: EstimateOptions,
): AsyncGenerator<{ done: number; total: number }, Record<"train" | "val", number> | undefined, void> {
  const { model } = trained, { device } = model, breather = new Breather(), pace = new Pace(PACE);
  const before = generator.getState(), losses: { split: "train" | "val"; weight: number; loss: Tensor }[] = [];
  let complete = false, ahead = 0;

  const evaluate = ({ arrays }: MicroBatch): Tensor => {
    using scope = device.scope();
    const tensors: Record<string, Tensor> = {};
    for (const [name, array] of Object.entries(arrays)) {
      tensors[name] = device.tensor(array.values, array.shape, { dtype: typeOf(array) });
    }
    return scope.keep(evaluating(trained, () => noGrad(() => task.loss(model, tensors))));
  };
  try {
    for (const split of ["train", "val"] as const) {
      for await (const batch of task.evaluate(split, { count, generator })) {
        const loss = lend(() => evaluate(batch));
        losses.push({ split, weight: batch.weight ?? 1, loss });
        if (!device.readsAtOnce && ++ahead >= pace.steps) {
          await loss.item(); // so that an interruption need not wait for hundreds of batches
          pace.waited();
          ahead = 0;
        } else device.flush();
        yield { done: losses.length, total: 2 * count };
        await breather.breathe();
        if (signal?.aborted) return;
      }
    }
    const values = await Promise.all(losses.map(({ loss }) => loss.item())); // one wait for all of them
    const mean = (of: "train" | "val") => {
      let sum = 0, weights = 0;
      for (const [i, { split, weight }] of losses.entries()) {
        if (split === of) [sum, weights] = [sum + weight * values[i], weights + weight];
      }
      if (weights === 0) throw new DataError(`the task has given no batch to evaluate ${of} on`);
      return sum / weights;
    };
    complete = true;
    return { train: mean("train"), val: mean("val") };
  } finally {
    if (!complete) generator.setState(before);
    for (const { loss } of losses) loss.dispose();
  }
}
