import { noGrad } from "../engine/autograd.ts";
import { Breather } from "../loop/breather.ts";
import { getBatch } from "../data/batch.ts";
import type { TokenSplits } from "../data/split.ts";
import type { GPT } from "../gpt.ts";
import { evaluating } from "../nn/module.ts";
import { Pace } from "../loop/pace.ts";
import type { Generator } from "../random/mod.ts";
import type { Tensor } from "../engine/tensor.ts";

/** Milliseconds from one wait for the device to the next. */
const PACE = 300;

export interface EstimateOptions {
  readonly batchSize: number;
  /** Batches of each split. */
  readonly evalIters: number;
  /** Draws the batches, first those of `train`, then those of `val`. */
  readonly generator: Generator;
  /** Runs each forward pass, in memory that is free until the evaluation ends. Default: in memory of its own. */
  readonly lend?: <T>(body: () => T) => T;
  /** Gives up before the next batch. */
  readonly signal?: AbortSignal;
}

/**
 * The model's mean loss on random batches of both splits, without dropout: nanoGPT's `estimate_loss`. It yields after every
 * batch how many of them are done.
 *
 * @returns nats a token; nothing where it was given up: then the generator is where it was before
 */
export async function* estimateLoss(
  model: GPT,
  data: TokenSplits,
  { batchSize, evalIters, generator, lend = (body) => body(), signal }: EstimateOptions,
): AsyncGenerator<{ done: number; total: number }, Record<keyof TokenSplits, number> | undefined, void> {
  const { device, config: { blockSize } } = model, breather = new Breather();
  const before = generator.getState(), losses: Tensor[] = [], total = 2 * evalIters;
  const pace = new Pace(PACE);
  let complete = false, ahead = 0;

  const evaluate = (split: keyof TokenSplits): Tensor => {
    using scope = device.scope();
    const { x, y } = getBatch(data[split], { blockSize, batchSize, generator });
    const ids = (values: Int32Array) => device.tensor(values, [batchSize, blockSize], { dtype: "i32" });
    return scope.keep(evaluating(model, () => noGrad(() => model.forward(ids(x), ids(y)).loss)));
  };
  try {
    while (losses.length < total) {
      losses.push(lend(() => evaluate(losses.length < evalIters ? "train" : "val")));
      if (!device.readsAtOnce && ++ahead >= pace.steps) {
        await losses.at(-1)!.item(); // so that an interruption need not wait for hundreds of batches
        pace.waited();
        ahead = 0;
      } else device.flush();
      yield { done: losses.length, total };
      await breather.breathe();
      if (signal?.aborted) return;
    }
    const values = await Promise.all(losses.map((loss) => loss.item())); // one wait for all of them
    const mean = (part: number[]) => part.reduce((a, b) => a + b) / evalIters;
    complete = true;
    return { train: mean(values.slice(0, evalIters)), val: mean(values.slice(evalIters)) };
  } finally {
    if (!complete) generator.setState(before);
    for (const loss of losses) loss.dispose();
  }
}
