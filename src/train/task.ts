/**
 * What a trainer trains for: where its batches come from, and what their loss is. Language modelling is one task
 * (language_modelling.ts); a task for a classifier, for preferences or for rollouts is written in the same way.
 */
import type { TrainerState } from "../checkpoint/trainer_state.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import type { Module } from "../nn/module.ts";
import type { AdamW, AdamWOptions } from "../optim/adamw.ts";
import type { RandomGenerator } from "../random/mod.ts";

/** Numbers for one tensor of a batch: an Int32Array becomes i32, the others f32. */
export interface BatchArray {
  /** Row by row. */ readonly values: Int32Array | Float32Array | Float64Array;
  /** Of the tensor. */ readonly shape: readonly number[];
  /** The least and the greatest integer that may stand in it: a captured program does not check ids itself. */
  readonly range?: readonly [least: number, greatest: number];
}

/** What one forward and backward pass runs over. */
export interface MicroBatch {
  /** By name; tokens per second counts the elements of the first. `loss` is captured once for each set of names and shapes. */
  readonly arrays: Readonly<Record<string, BatchArray>>;
  /**
   * The share of the update's gradient, and of the loss that is reported, where the shares of an update add up to 1; in an evaluation the weight of its loss in the
   * mean. Default: all alike.
   */
  readonly weight?: number;
}

/** One after the other, so that an `async *` method can read a file or write texts between two of them. */
export type MicroBatches = Iterable<MicroBatch> | AsyncIterable<MicroBatch>;

/** What batches are drawn with. */
export interface DrawOptions {
  /** How many batches are asked for; a task may give more or fewer. */
  readonly count: number;
  /** The trainer's, whose state is saved with the run. */
  readonly generator: RandomGenerator;
  /**
   * Aborts when the run is to stop. Where `ahead` is false, a draw that takes long may throw its reason: the run that goes on draws
   * that update anew.
   */
  readonly signal?: AbortSignal;
}

/** A task's own fields in state.json, under names that are not the trainer's. */
export type TaskState =
  & Readonly<Record<string, unknown>>
  & { readonly [K in Exclude<keyof TrainerState, "offsets">]?: never };

/** Means by their names, such as `accuracy`. */
export type Measures = Readonly<Record<string, number>>;

/** The mean loss of a batch, (), and other numbers of it. */
export interface LossAndOutputs {
  /** () */ readonly loss: Tensor;
  /** f32, of a shape that the task knows. */ readonly outputs: Tensor;
}

/** What {@linkcode Task.loss} gave, with or without other numbers. */
export const lossOf = (made: Tensor | LossAndOutputs): Omit<LossAndOutputs, "outputs"> & Partial<LossAndOutputs> =>
  "loss" in made ? made : { loss: made };

/** Numbers by their names, as {@linkcode Measures}. */
export const namedMeasures = (names: readonly string[] = [], numbers: ArrayLike<number> = []): Measures =>
  Object.fromEntries(names.map((name, i) => [name, numbers[i]]));

/** What a trainer trains for. */
export interface Task {
  /**
   * Whether the first micro-batch of an update may be drawn as soon as the update before it is launched: true where batches do
   * not depend on the weights. Otherwise `draw` is called when the weights are up to date.
   */
  readonly ahead: boolean;
  /** Parameters besides the model's, such as a head. They are trained with the model's and stored in task.safetensors. */
  readonly module?: Module;
  /** What a checkpoint has to agree in to be resumed, the task's name first. Default: language modelling. */
  readonly config?: Readonly<Record<string, string | number | boolean | readonly string[]>> & { readonly name: string };
  /** Names of the numbers that {@linkcode loss} gives beside the loss. */
  readonly measures?: readonly string[];
  /** Names of those measures of an update that a line of progress shows. Default: none. */
  readonly shown?: readonly string[];
  /**
   * The micro-batches of the next update. Each is taken when the pass before it is launched.
   *
   * Where `ahead` is false it may throw a TrainingError, such as that a reward function has failed: the trainer then saves the run
   * as it was before this update, so {@linkcode state} has to give what it gave before the draw.
   */
  draw(options: DrawOptions): MicroBatches;
  /** Batches to judge the model by. May be cut short, and then leaves no trace but in the generator, which is set back. */
  evaluate(split: "train" | "val", options: DrawOptions): MicroBatches;
  /**
   * The mean loss of a batch, (). Runs once for each set of shapes and is replayed: numbers that change stand in the batch. With
   * {@linkcode measures} also `outputs`, f32 with a number for each of these names: means, which count by the weights of the
   * micro-batches, as losses do.
   */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): Tensor | LossAndOutputs;
  /** What the host knows of an update, such as the mean reward. Called once for each, when its micro-batches have been drawn. */
  drawn?(): Measures;
  /**
   * In place of `loss` in an evaluation, where more is to be known of a batch than its loss: besides it, the numbers that
   * {@linkcode measure} looks at.
   */
  judge?(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs;
  /** Means over a batch, such as the accuracy, out of what {@linkcode judge} has given. Default: outputs by their names in `measures`. */
  measure?(outputs: NumberArray, batch: MicroBatch): Measures;
  /** What is reported of the means over all batches of an evaluation, where that is not these. */
  conclude?(means: Measures): Measures;
  /** What it takes to draw the same again. Where `ahead` is true, a micro-batch drawn ahead is drawn again from it. */
  state(): TaskState;
  /** Takes what {@linkcode state} gave. @throws {CheckpointError} when it is not valid; `path` is the file's */
  restore(state: Readonly<Record<string, unknown>>, path: string): void;
  /** Tells the data from others, for run.json: on other data than the run's, a resumed run has no best checkpoint. */
  identity?(): Readonly<Record<string, TokensIdentity>>;
  /** An optimizer with parameter groups of the task's own. Default: AdamW over all that is trained, in one group. */
  configureOptimizers?(model: GPT, options: AdamWOptions): AdamW;
}
