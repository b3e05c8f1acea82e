/** The options of a trainer: nanoGPT's fields, with train.py's defaults. */
import { ConfigError, nearest } from "../errors.ts";
import { type ScheduleOptions, TRAIN_PY } from "../optim/schedule.ts";

/** The options of a trainer: nanoGPT's names in camelCase. The default is given after each colon. */
export interface TrainerOptions extends ScheduleOptions {
  /** Sequences in a micro-batch: 12. */
  readonly batchSize: number;
  /** Micro-batches whose gradients make one update: 40. */
  readonly gradientAccumulationSteps: number;
  /**
   * The last iteration, counted from 0: 600000. As in nanoGPT, one update more is made, unless `finalEvaluation` is
   * set.
   */
  readonly maxIters: number;
  /** Whether to end with an evaluation after exactly `maxIters` updates: false, as in nanoGPT. */
  readonly finalEvaluation: boolean;
  /** Training stops after this many evaluations in a row without a lower validation loss: 0, never. */
  readonly patience: number;
  /** Iterations from one evaluation to the next: 2000. */
  readonly evalInterval: number;
  /** Batches of each split that an evaluation averages over: 200. */
  readonly evalIters: number;
  /** Iterations from one logged loss to the next: 1. */
  readonly logInterval: number;
  /** Evaluate once and stop: false. */
  readonly evalOnly: boolean;
  /** Whether to save at every evaluation, even if the validation loss is not the lowest so far: true. */
  readonly alwaysSaveCheckpoint: boolean;
  /** Weight decay of matrices and embeddings: 0.1. */
  readonly weightDecay: number;
  /** Decay of AdamW's moving average of gradients: 0.9. */
  readonly beta1: number;
  /** Decay of AdamW's moving average of squared gradients: 0.95. */
  readonly beta2: number;
  /** Maximum norm of the gradients, to which larger ones are scaled down: 1. 0 disables clipping. */
  readonly gradClip: number;
}

const DEFAULTS: TrainerOptions = {
  ...TRAIN_PY,
  batchSize: 12,
  gradientAccumulationSteps: 5 * 8, // for eight GPUs, as train.py says
  maxIters: 600000,
  evalInterval: 2000,
  evalIters: 200,
  logInterval: 1,
  evalOnly: false,
  alwaysSaveCheckpoint: true,
  decayLr: true,
  warmupIters: 2000,
  lrDecayIters: 600000,
  minLr: 6e-5,
  gradClip: 1,
  lrSchedulerType: "cosine",
  finalEvaluation: false,
  patience: 0,
};

/** The names of all options. */
export const TRAINER_OPTIONS = Object.keys(DEFAULTS) as (keyof TrainerOptions)[];

const COUNTS = ["batchSize", "gradientAccumulationSteps", "evalInterval", "evalIters", "logInterval"] as const;
const WHOLE = ["maxIters", "warmupIters", "lrDecayIters", "patience"] as const;
const RATES = ["learningRate", "minLr", "weightDecay", "gradClip"] as const;
const SHARES = ["beta1", "beta2"] as const;

/** Fills in the defaults. @throws {ConfigError} when a value is out of its range, or a name is not an option */
export function trainerOptions(given: Partial<TrainerOptions>): TrainerOptions {
  const options = { ...DEFAULTS }, names: string[] = TRAINER_OPTIONS;
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    const meant = nearest(name.replaceAll("_", ""), names);
    throw new ConfigError(
      `${name} is not an option of Trainer${meant ? `; did you mean ${meant}?` : `: ${names.join(", ")}`}`,
    );
  }
  for (const name of TRAINER_OPTIONS) {
    if (given[name] !== undefined) Object.assign(options, { [name]: given[name] });
  }
  const expect = (names: readonly (keyof TrainerOptions)[], holds: (value: number) => boolean, what: string) => {
    for (const name of names) {
      if (!holds(options[name] as number)) throw new ConfigError(`${name} is ${options[name]}; expected ${what}`);
    }
  };
  expect(COUNTS, (value) => Number.isSafeInteger(value) && value >= 1, "a whole number above 0");
  expect(WHOLE, (value) => Number.isSafeInteger(value) && value >= 0, "a whole number, 0 or more");
  expect(RATES, (value) => Number.isFinite(value) && value >= 0, "a number, 0 or more");
  if (!["cosine", "linear"].includes(options.lrSchedulerType!)) {
    throw new ConfigError(`lrSchedulerType is ${options.lrSchedulerType}; expected cosine or linear`);
  }
  expect(SHARES, (value) => value >= 0 && value < 1, "a number from 0 to below 1");
  return options;
}
