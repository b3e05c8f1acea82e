/** Runs and their checkpoints on the disk. */
export type { Checkpoint, SavedCheckpoint } from "./checkpoint_folder.ts";
export type { EvaluationMetrics, Metrics, StepMetrics } from "./metrics.ts";
export { type RunDescription, RunFolder } from "./run_folder.ts";
export {
  SafetensorsFile,
  type TensorArray,
  type TensorInfo,
  type TensorSource,
  type TensorType,
  writeSafetensors,
} from "./safetensors.ts";
export { loadTensors, type NamedTensors, sources } from "./tensors.ts";
