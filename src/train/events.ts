import type { Measures } from "./task.ts";

/** An event of a training run. Losses are in nats per token. */
export type TrainEvent = StepEvent | EvaluatingEvent | EvaluationEvent | CheckpointEvent;

/**
 * An update whose loss is logged: every `logInterval` iterations. On a GPU the event comes some iterations late,
 * because reading a loss waits for the device.
 */
export interface StepEvent {
  /** Discriminates the union. */ readonly kind: "step";
  /** The iteration, counted from 0. */ readonly iter: number;
  /** Loss before the update: the last micro-batch's, or the weighted sum if the task sets weights. */
  readonly loss: number;
  /** Learning rate of the update. */ readonly lr: number;
  /** Norm of all gradients, before clipping. */ readonly gradNorm: number;
  /** Milliseconds per iteration without evaluation, averaged since the last read. */ readonly ms: number;
  /** Training throughput. */ readonly tokensPerSecond: number;
  /** Model FLOPs utilisation: the share of `peakFlops` reached, if `peakFlops` is set. */ readonly mfu?: number;
  /** The task's own measures, such as `rewards/margins`: means over the update. */ readonly measures?: Measures;
}

/** One batch of an evaluation is finished. */
export interface EvaluatingEvent {
  /** Discriminates the union. */ readonly kind: "evaluating";
  /** The iteration of the next update. */ readonly iter: number;
  /** Batches finished so far. */ readonly done: number;
  /** Batches of both splits together. */ readonly total: number;
}

/** An evaluation is finished. */
export interface EvaluationEvent {
  /** Discriminates the union. */ readonly kind: "evaluation";
  /** The iteration of the next update. */ readonly iter: number;
  /** Mean loss on the training split. */ readonly trainLoss: number;
  /** Mean loss on the validation split. */ readonly valLoss: number;
  /** The task's own measures, such as `train_accuracy` and `val_accuracy`. */ readonly measures: Measures;
  /** Whether the validation loss is the lowest so far. */ readonly best: boolean;
  /** Evaluations since the lowest validation loss; 0 if this one is the lowest. */ readonly sinceBest: number;
}

/** A checkpoint was written to disk. */
export interface CheckpointEvent {
  /** Discriminates the union. */ readonly kind: "checkpoint";
  /** The iteration of the next update. */ readonly iter: number;
  /** The checkpoint's folder, relative to the run's folder. */ readonly name: string;
  /** Whether it is the best checkpoint so far. */ readonly best: boolean;
}
