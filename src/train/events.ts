/** What a run of training reports. Losses are in nats a token. */
export type TrainEvent = StepEvent | EvaluatingEvent | EvaluationEvent | CheckpointEvent;

/** An iteration whose loss is logged: every `logInterval`. On a GPU it comes some iterations late, for reading waits. */
export interface StepEvent {
  readonly kind: "step";
  readonly iter: number;
  /** Of the last micro-batch, before the update. */
  readonly loss: number;
  readonly lr: number;
  /** Over all parameters, before clipping. */
  readonly gradNorm: number;
  /** Of an iteration, without evaluation: the mean of those whose losses were read together. */
  readonly ms: number;
  readonly tokensPerSecond: number;
  /** What part of `peakFlops` was reached, where that was given. */
  readonly mfu?: number;
}

/** A batch of an evaluation is done. */
export interface EvaluatingEvent {
  readonly kind: "evaluating";
  readonly iter: number;
  readonly done: number;
  readonly total: number;
}

export interface EvaluationEvent {
  readonly kind: "evaluation";
  readonly iter: number;
  readonly trainLoss: number;
  readonly valLoss: number;
  /** Whether the validation loss is the lowest so far. */
  readonly best: boolean;
}

export interface CheckpointEvent {
  readonly kind: "checkpoint";
  readonly iter: number;
  /** The checkpoint's folder in the run's. */
  readonly name: string;
  /** Whether it is the best so far, and not only the last. */
  readonly best: boolean;
}
