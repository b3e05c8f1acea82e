/**
 * Saves and loads models: run folders with their checkpoints, nanoGPT's `ckpt.pt`, Hugging Face model folders, GGUF
 * files and adapters.
 *
 * A run folder is what `deno task train` writes; {@linkcode RunFolder} reads and writes it. To load a model by its
 * name, use `@nanogpt/ts/pretrained`.
 *
 * @module
 */
export type { AdapterShape, SavedAdapter, TrainedAdapter } from "./adapter.ts";
export type { Checkpoint, SavedCheckpoint } from "./checkpoint_folder.ts";
export type { EvaluationMetrics, Metrics, StepMetrics } from "./metrics.ts";
export { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../half.ts";
export {
  GgufFile,
  type GgufScalar,
  type GgufScalarType,
  type GgufSource,
  type GgufTensor,
  type GgufType,
  type GgufValue,
  type WritableType,
  type WritableValue,
  writeGguf,
} from "../files/gguf.ts";
export { GgufModel } from "./gguf.ts";
export { saveGguf, type SaveGgufOptions } from "./gguf_save.ts";
export { loadHuggingFace, type LoadHuggingFaceOptions } from "./hugging_face.ts";
export type { HuggingFaceHead, SavedHead } from "./hugging_face_heads.ts";
export { saveHuggingFace, type SaveHuggingFaceOptions } from "./hugging_face_save.ts";
export { readMetaPkl, writeMetaPkl } from "../tokenizer/meta_pkl.ts";
export type { OpenFile, OutputFile } from "../files/files.ts";
export { type LoadedNanoGPT, loadNanoGPT, NanoGPTFile, type OptimizerSources } from "./nanogpt.ts";
export { type ConversionOptions, nanoGPTToRun, runToNanoGPT } from "./nanogpt_run.ts";
export { type NanoGPTCheckpoint, type NanoGPTProgress, saveNanoGPT, writeNanoGPT } from "./nanogpt_save.ts";
export { type PickleDict, type PickleKey, PickleObject, type PickleValue } from "../files/pickle_values.ts";
export { PickleCall, PickleFloat, type PickleInput, PickleName, PicklePersistent } from "../files/pickle_writer.ts";
export { type RunDescription, RunFolder } from "./run_folder.ts";
export type { RunBase } from "./run_json.ts";
export * from "../files/safetensors.ts";
export { type LoadOptions, loadTensors, type NamedTensors, sources } from "./tensors.ts";
export { TorchFile } from "../files/torch_file.ts";
export { TorchStorage, TorchTensor, type TorchType } from "../files/torch_structure.ts";
export { type TorchInput, writeTorchFile } from "../files/torch_writer.ts";
