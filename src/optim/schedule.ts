/**
 * Learning rate schedules: a linear warm-up, then a decay (half a cosine, Loshchilov and Hutter 2016, arXiv:1608.03983,
 * or a line), then a constant rate.
 */

/** AdamW's options in nanoGPT's train.py: defaults of the trainer, and of a ckpt.pt whose flags do not name them. */
export const TRAIN_PY = { learningRate: 6e-4, weightDecay: 0.1, beta1: 0.9, beta2: 0.95 } as const;

/** Options of {@linkcode learningRate}. They are nanoGPT's, except `lrSchedulerType`, which is from transformers. */
export interface ScheduleOptions {
  /** The highest rate; if `decayLr` is false, the rate of all iterations. */ readonly learningRate: number;
  /** Number of iterations of the warm-up. */ readonly warmupIters: number;
  /** The iteration at which the decay ends: about `maxIters`, as Hoffmann et al. (2022) advise. */
  readonly lrDecayIters: number;
  /** The rate at the end of the decay: about a tenth of `learningRate`. */ readonly minLr: number;
  /** Whether the rate changes; false: it is constant. */ readonly decayLr: boolean;
  /**
   * Shape of the decay: `cosine` (default), as in nanoGPT, or `linear`, as in transformers'
   * `get_linear_schedule_with_warmup`.
   */
  readonly lrSchedulerType?: "cosine" | "linear";
}

/**
 * Computes the learning rate of the update at iteration `iter`, like nanoGPT's `get_lr`. With w = warmupIters and d =
 * lrDecayIters:
 *
 *     iter < w:      lr · (iter + 1) / (w + 1)
 *     w ≤ iter < d:  min + ½ (1 + cos(π (iter − w) / (d − w))) (lr − min)
 *     d ≤ iter:      min
 *
 * With `linear` the first two are lr · iter / w, which makes the first update of a warm-up change nothing, and
 * min + (d − iter) / (d − w) (lr − min).
 *
 * @param iter number of iterations completed, from 0
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
  if (iter >= lrDecayIters) return minLr; // also at iter = d, where the cosine is 0 / 0 if d = w
  const progress = (iter - warmupIters) / (lrDecayIters - warmupIters);
  const left = linear ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress));
  return minLr + left * (learningRate - minLr);
}
