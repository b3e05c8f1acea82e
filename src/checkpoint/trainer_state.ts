/** state.json: what a run needs, besides its tensors, to resume with the same bits. */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { GeneratorState } from "../random/mod.ts";

/** The contents of state.json. A task may add fields of its own. */
export interface TrainerState {
  /** Number of the next iteration, which is also the number of completed updates. */
  readonly iter: number;
  /** Whether the evaluation before the next iteration was already made. */
  readonly evaluated: boolean;
  /** Best validation loss in nats per token; null before the first evaluation. */
  readonly bestValLoss: number | null;
  /** Number of evaluations since the best one. Default: 0. */
  readonly sinceBest?: number;
  /**
   * State of the generator of weights and batches. null if another program trained the model; then the generator
   * continues from where it is after drawing the initial weights.
   */
  readonly generator: GeneratorState | null;
  /**
   * Language modelling only: positions in the training tokens of the batch that was drawn ahead; empty if none was
   * drawn.
   */
  readonly offsets?: number[];
  /** Number of forward passes that have drawn dropout's noise. */
  readonly dropoutPasses: number;
  /** Number of steps that the optimizer has made. */
  readonly optimizerSteps: number;
  /** Description of the task, if it is not language modelling. */
  readonly task?: Readonly<Record<string, unknown>>;
}

/**
 * Checks a state.json.
 * @throws {CheckpointError} when a field is missing or not valid; generator and task are checked by their users
 */
export function parseState(path: string, state: Readonly<Record<string, unknown>>): TrainerState {
  const { iter, evaluated, bestValLoss, sinceBest = 0, generator, dropoutPasses, optimizerSteps, task = {} } = state;
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const checks: Record<string, boolean> = {
    iter: isCount(iter),
    evaluated: typeof evaluated === "boolean",
    bestValLoss: bestValLoss === null || Number.isFinite(bestValLoss),
    sinceBest: isCount(sinceBest),
    generator: generator === null || isObject(generator),
    dropoutPasses: isCount(dropoutPasses),
    optimizerSteps: isCount(optimizerSteps),
    task: isObject(task),
  };
  const wrong = Object.keys(checks).find((name) => !checks[name]);
  if (wrong) throw new CheckpointError(`${path} is damaged: ${wrong} is missing or not valid`);
  return state as unknown as TrainerState;
}
