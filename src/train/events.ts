import type { Measures } from "./task.ts";

/** What a run of training reports. Losses are in nats a token. */
export type TrainEvent = StepEvent | EvaluatingEvent | EvaluationEvent | CheckpointEvent;

/** An iteration whose loss is logged: every `logInterval`. On a GPU it comes some iterations late, for reading waits. */
export interface StepEvent {
  /** An update. */ readonly kind: "step";
  /** Its number. */ readonly iter: number;
  /** Of the last micro-batch, before the update; of all of them, where the task weighs them. */ readonly loss: number;
  /** Its learning rate. */ readonly lr: number;
  /** Over all parameters, before clipping. */ readonly gradNorm: number;
  /** Of an iteration, without evaluation: the mean of those whose losses were read together. */ readonly ms: number;
  /** Its tokens over its time. */ readonly tokensPerSecond: number;
  /** What part of `peakFlops` was reached, where that was given. */ readonly mfu?: number;
  /** What the task measures besides, such as `rewards/margins`: means over the update. */ readonly measures?: Measures;
}

/** A batch of an evaluation is done. */
export interface EvaluatingEvent {
  /** Within an evaluation. */ readonly kind: "evaluating";
  /** The update that comes next. */ readonly iter: number;
  /** Batches judged so far. */ readonly done: number;
  /** Batches of both splits. */ readonly total: number;
}

/** An evaluation is done. */
export interface EvaluationEvent {
  /** Its end. */ readonly kind: "evaluation";
  /** The update that comes next. */ readonly iter: number;
  /** In nats a token. */ readonly trainLoss: number;
  /** In nats a token. */ readonly valLoss: number;
  /** What the task measures besides, such as `train_accuracy` and `val_accuracy`. */ readonly measures: Measures;
  /** Whether the validation loss is the lowest so far. */ readonly best: boolean;
  /** Evaluations since the one with the lowest validation loss: 0 where this is it. */ readonly sinceBest: number;
}

/** A checkpoint is on the disk. */
export interface CheckpointEvent {
  /** A save. */ readonly kind: "checkpoint";
  /** The update that comes next. */ readonly iter: number;
  /** The checkpoint's folder in the run's. */ readonly name: string;
  /** Whether it is the best so far, and not only the last. */ readonly best: boolean;
}
