/**
 * The interface between a trainer and what it trains for: a task supplies batches and computes their loss. Language
 * modelling (language_modelling.ts) is one task; classification, preferences and reinforcement learning (src/finetune)
 * are others.
 */
import type { TrainerState } from "../checkpoint/trainer_state.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import type { Module } from "../nn/module.ts";
import type { AdamW, AdamWOptions } from "../optim/adamw.ts";
import type { RandomGenerator } from "../random/mod.ts";

/**
 * The values of one tensor of a batch. An Int32Array becomes an i32 tensor; Float32Array and Float64Array become f32.
 */
export interface BatchArray {
  /** In row-major order. */ readonly values: Int32Array | Float32Array | Float64Array;
  /** The tensor's shape. */ readonly shape: readonly number[];
  /**
   * The smallest and largest integer allowed. Checked when the batch is loaded, because a replayed program checks
   * nothing.
   */
  readonly range?: readonly [least: number, greatest: number];
}

/** The input of one forward and backward pass. */
export interface MicroBatch {
  /**
   * Arrays by name. The elements of the first count as tokens. `loss` is captured once for each set of names and
   * shapes.
   */
  readonly arrays: Readonly<Record<string, BatchArray>>;
  /**
   * In training, the loss of an update is the sum of weight · loss over its micro-batches; if the losses are means, the
   * weights should sum to 1. In an evaluation, the losses are averaged with these weights. Default: all micro-batches
   * count equally.
   */
  readonly weight?: number;
}

/** Micro-batches, one after the other. Asynchronous if the task reads a file or generates text between two of them. */
export type MicroBatches = Iterable<MicroBatch> | AsyncIterable<MicroBatch>;

/** Options for drawing batches. */
export interface DrawOptions {
  /** Number of batches requested. A task may return more or fewer. */
  readonly count: number;
  /** The trainer's generator. Checkpoints store its state. */
  readonly generator: RandomGenerator;
  /**
   * Aborts when the run should stop. If `ahead` is false, a slow draw may throw the signal's reason; a resumed run then
   * draws that update again from its start.
   */
  readonly signal?: AbortSignal;
}

/** A task's own fields in state.json. Their names must differ from the trainer's fields. */
export type TaskState =
  & Readonly<Record<string, unknown>>
  & { readonly [K in Exclude<keyof TrainerState, "offsets">]?: never };

/** Named means, such as `accuracy`. */
export type Measures = Readonly<Record<string, number>>;

/** The mean loss of a batch and other numbers computed with it. */
export interface LossAndOutputs {
  /** Shape (). */ readonly loss: Tensor;
  /** f32, of a shape that the task defines. */ readonly outputs: Tensor;
}

/** The result of {@linkcode Task.loss} as an object, whether or not it has outputs. */
export const lossOf = (made: Tensor | LossAndOutputs): Omit<LossAndOutputs, "outputs"> & Partial<LossAndOutputs> =>
  "loss" in made ? made : { loss: made };

/** Joins names and numbers into {@linkcode Measures}. */
export const namedMeasures = (names: readonly string[] = [], numbers: ArrayLike<number> = []): Measures =>
  Object.fromEntries(names.map((name, i) => [name, numbers[i]]));

/** Supplies a trainer with batches, their loss and what else is reported. */
export interface Task {
  /**
   * Whether the first micro-batch of an update may be drawn as soon as the update before it is launched: true if
   * batches do not depend on the weights. If false, `draw` is called after the weights are updated.
   */
  readonly ahead: boolean;
  /** Parameters besides the model's, such as a head. They are trained too, and stored in task.safetensors. */
  readonly module?: Module;
  /** The task's name and settings. A checkpoint can be resumed only if they are equal. Default: language modelling. */
  readonly config?: Readonly<Record<string, string | number | boolean | readonly string[]>> & { readonly name: string };
  /** Names of the numbers that {@linkcode loss} returns in `outputs`. */
  readonly measures?: readonly string[];
  /** Names of the measures of an update that a progress line shows. Default: none. */
  readonly shown?: readonly string[];
  /**
   * Draws the micro-batches of the next update. The trainer requests each one after it has launched the pass over the
   * previous micro-batch.
   *
   * If `ahead` is false, it may throw a TrainingError, for example when a reward function fails. The trainer then saves
   * the run as it was before this update, so {@linkcode state} must return the state before the draw.
   */
  draw(options: DrawOptions): MicroBatches;
  /**
   * Draws the batches of an evaluation. If the evaluation is interrupted, the trainer restores the generator; the task
   * must not change any other state.
   */
  evaluate(split: "train" | "val", options: DrawOptions): MicroBatches;
  /**
   * Computes the mean loss of a batch, of shape (). It runs once for each set of shapes and is captured; later updates
   * replay the program. So numbers that change between updates must be in the batch. A task with {@linkcode measures}
   * also returns `outputs`: f32, one mean for each name, weighted over the micro-batches as the loss is.
   */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): Tensor | LossAndOutputs;
  /**
   * Measures of an update known on the host, such as the mean reward. Called once after its micro-batches were drawn.
   */
  drawn?(): Measures;
  /**
   * Replaces `loss` in an evaluation, for a task that measures more than the loss: returns the loss and the numbers
   * that {@linkcode measure} reads.
   */
  judge?(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs;
  /**
   * Computes means over a batch, such as the accuracy, from the outputs of {@linkcode judge}. Default: the outputs,
   * named by `measures`.
   */
  measure?(outputs: NumberArray, batch: MicroBatch): Measures;
  /** Turns the means over all batches of an evaluation into the measures reported. Default: reports the means. */
  conclude?(means: Measures): Measures;
  /**
   * Returns the state from which the same batches can be drawn again. If `ahead` is true, it includes the micro-batch
   * drawn ahead.
   */
  state(): TaskState;
  /**
   * Restores a {@linkcode state}.
   *
   * @param path path of the file that the state was read from, for messages
   * @throws {CheckpointError} when the state is not valid
   */
  restore(state: Readonly<Record<string, unknown>>, path: string): void;
  /** Identifies the data; stored in run.json. If it differs, a resumed run starts without a best checkpoint. */
  identity?(): Readonly<Record<string, TokensIdentity>>;
  /**
   * Creates an optimizer with the task's own parameter groups. Default: AdamW over all trainable parameters in one
   * group.
   */
  configureOptimizers?(model: GPT, options: AdamWOptions): AdamW;
}
