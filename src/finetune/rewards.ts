/** What scores completions. */
import type { Words } from "../data/examples.ts";

/** A completion to be scored. */
export interface Sample {
  readonly prompt: Words;
  readonly completion: string;
  /** Of prompt and completion, special tokens too. */
  readonly ids: Int32Array;
  readonly from: number;
  readonly ended: boolean;
  readonly more?: Readonly<Record<string, unknown>>;
}

/** What scores completions. */
export interface Reward extends Disposable {
  readonly name: string;
  readonly weight: number;
  score(samples: readonly Sample[], options?: { signal?: AbortSignal }): Promise<Float64Array>;
}

/** A function of this process. */
export function plainReward(name: string, fn: (sample: Sample) => number, weight = 1): Reward {
  return {
    name,
    weight,
    score: (samples) => Promise.resolve(Float64Array.from(samples, fn)),
    [Symbol.dispose]() {},
  };
}
