/** state.json: what a run needs besides its tensors to go on bit for bit. */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import type { GeneratorState } from "../random/mod.ts";

/** What state.json holds: all besides tensors that it takes to go on bit for bit. */
export interface TrainerState {
  /** The iteration that comes next: how many updates were made. */
  readonly iter: number;
  /** Whether the evaluation of that iteration was made already. */
  readonly evaluated: boolean;
  /** Nats a token; null before the first evaluation. */
  readonly bestValLoss: number | null;
  /** Evaluations since then that were not lower, where there were any. */
  readonly sinceBest?: number;
  /** Of weights and batches; null where another program has trained: then the one that drew the weights goes on. */
  readonly generator: GeneratorState | null;
  /** Of language modelling: where in the training tokens the blocks of the batch drawn ahead begin; none where none was drawn. */
  readonly offsets?: number[];
  /** How many forward passes have drawn dropout's noise. */
  readonly dropoutPasses: number;
  /** How many steps the optimizer has made. */
  readonly optimizerSteps: number;
  /** What was trained for, where that is not language modelling. A task's own fields stand beside these. */
  readonly task?: Readonly<Record<string, unknown>>;
}

/** @throws {CheckpointError} when something is missing or not valid; the generator and the task check their own parts */
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
  if (wrong) throw new CheckpointError(`${path} is damaged: ${wrong} is missing or not what it should be`);
  return state as unknown as TrainerState;
}
