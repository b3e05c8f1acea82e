/** Learning rate by iteration: linear warm-up, then half a cosine (Loshchilov and Hutter 2016, arXiv:1608.03983) or a line, then flat. */

/** What nanoGPT's train.py gives AdamW by default: the trainer's defaults, and those of a ckpt.pt whose flags name none. */
export const TRAIN_PY = { learningRate: 6e-4, weightDecay: 0.1, beta1: 0.9, beta2: 0.95 } as const;

/** Names, meaning and defaults are nanoGPT's; `lrSchedulerType` is transformers'. */
export interface ScheduleOptions {
  /** The highest rate; the rate throughout where `decayLr` is false. */ readonly learningRate: number;
  /** Iterations until the highest rate is reached. */ readonly warmupIters: number;
  /** The iteration from which on the rate is `minLr`: about `maxIters`, as Hoffmann et al. (2022) advise. */
  readonly lrDecayIters: number;
  /** Where the cosine ends: about a tenth of `learningRate`. */ readonly minLr: number;
  /** Whether the rate changes at all. */ readonly decayLr: boolean;
  /** `cosine`, nanoGPT's and the default, or `linear`: transformers' `get_linear_schedule_with_warmup`. */
  readonly lrSchedulerType?: "cosine" | "linear";
}

/**
 * The learning rate of the update at iteration `iter`, counted from 0, as nanoGPT's `get_lr`.
 *
 * With w = warmupIters and d = lrDecayIters: lr (iter + 1) / (w + 1) before w, so that the first update already moves;
 * min + ½ (1 + cos π (iter − w) / (d − w)) (lr − min) from w to d; min from there on. With `linear`: lr · iter / w before w, so
 * that the first update of a warm-up moves nothing; min + (d − iter) / (d − w) (lr − min) from w to d.
 *
 * @param iter iterations completed
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { learningRate } from "./schedule.ts";
 *
 * const options = { learningRate: 1, warmupIters: 1, lrDecayIters: 101, minLr: 0, decayLr: true };
 * assertEquals([0, 1, 101].map((iter) => learningRate(iter, options)), [0.5, 1, 0]);
 * ```
 */
export function learningRate(iter: number, options: ScheduleOptions): number {
  const { learningRate, warmupIters, lrDecayIters, minLr, decayLr, lrSchedulerType } = options;
  const linear = lrSchedulerType === "linear", early = linear ? 0 : 1;
  if (!decayLr) return learningRate;
  if (iter < warmupIters) return learningRate * (iter + early) / (warmupIters + early);
  if (iter >= lrDecayIters) return minLr; // at the end exactly, the cosine gives the same, or 0 / 0 without a decay
  const progress = (iter - warmupIters) / (lrDecayIters - warmupIters);
  const left = linear ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
  return minLr + left * (learningRate - minLr);
}
