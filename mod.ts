/**
 * nanoGPT in TypeScript: a GPT, a trainer and a sampler on a minimal autograd tensor engine, whose kernels run in
 * WebAssembly and WebGPU. All of it is checked against PyTorch.
 *
 * @example
 * ```ts
 * import { createDevice, generate, GPT } from "@nanogpt/ts";
 *
 * using device = await createDevice("auto"); // closed at the end of the block
 * const model = new GPT({ vocabSize: 65, blockSize: 16, nLayer: 2, nHead: 2, nEmbd: 32 }, { device, seed: 1337 });
 * const optimizer = model.configureOptimizers({ weightDecay: 0.1, learningRate: 1e-3, betas: [0.9, 0.99] });
 * const tokens = device.tensor([1, 2, 3, 4], [1, 4], { dtype: "i32" });
 * const targets = device.tensor([2, 3, 4, 5], [1, 4], { dtype: "i32" });
 * function step(): Promise<number> {
 *   using _ = device.scope(); // frees the tensors of this step at its end
 *   const { loss } = model.forward(tokens, targets);
 *   loss.backward();
 *   optimizer.step();
 *   optimizer.zeroGrad();
 *   return loss.item(); // starts the read before the scope ends; a scope must not span an await
 * }
 * for (let i = 0; i < 20; i++) console.log(i, await step());
 * for await (const token of generate(model, [1], { maxNewTokens: 8, temperature: 0.8, topK: 20 })) console.log(token);
 * ```
 *
 * @module
 */
export { noGrad } from "./src/engine/autograd.ts";
export { CpuDevice, type CpuOptions } from "./src/device/cpu.ts";
export { createDevice, type DeviceName, type DeviceOptions, type NoOptions } from "./src/device/create.ts";
export { type Capacity, Device, type MemoryReport, Program, Storage } from "./src/engine/device.ts";
export { ReferenceDevice } from "./src/device/reference.ts";
export type { DType, FloatArray, NumberArray, StorageType } from "./src/kernel.ts";
export { Scope } from "./src/engine/scope.ts";
export * from "./src/errors.ts";
export {
  type EvaluateOptions,
  evaluateText,
  type Evaluation,
  perplexity,
  type TextEvaluation,
} from "./src/evaluate/perplexity.ts";
export { type FeatureOptions, type Features, features } from "./src/evaluate/features.ts";
export type { Needs } from "./src/engine/capacity.ts";
export {
  type Block,
  type CausalSelfAttention,
  type ForwardOptions,
  GPT,
  type GPTConfig,
  type GPTOptions,
  type GPTOutput,
  type HiddenOptions,
  type MLP,
} from "./src/gpt.ts";
export { checkInference, type InferenceNeeds, inferenceNeeds, type InferenceOptions } from "./src/generate/memory.ts";
export { type CacheType, KeyValueCache } from "./src/nn/cache.ts";
export {
  AdamW,
  type AdamWOptions,
  type NamedParameter,
  type ParameterGroup,
  type Rates,
  type StepOptions,
} from "./src/optim/adamw.ts";
export {
  type GeneratedText,
  pipeline,
  type PipelineOptions,
  setSeed,
  type TextGenerationOptions,
  type TextGenerationPipeline,
} from "./src/pretrained/pipeline.ts";
export { loadPretrained, type Pretrained, type PretrainedOptions } from "./src/pretrained/load.ts";
export { Profile, type ProfileRow } from "./src/engine/profile.ts";
export { RandomGenerator } from "./src/random/mod.ts";
export {
  type Chosen,
  type FinishReason,
  generate,
  type GeneratedToken,
  type GenerateOptions,
  generateSequences,
  type Prompts,
  type PromptToken,
  type Row,
  type RowOptions,
  type RowRequest,
  Rows,
  type RowsOptions,
  type RowToken,
  type SamplingOptions,
  type SequencesOptions,
  type StoppingOptions,
  type Taken,
  type TokenLogprob,
} from "./src/generate/generate.ts";
export { type NestedNumbers, type NewTensorOptions, Tensor, type TensorOptions } from "./src/engine/tensor.ts";
export { checkTraining, type TrainingNeeds, trainingNeeds, type TrainingOptions } from "./src/train/memory.ts";
export { LanguageModelling } from "./src/train/language_modelling.ts";
export type {
  BatchArray,
  DrawOptions,
  LossAndOutputs,
  Measures,
  MicroBatch,
  MicroBatches,
  Task,
  TaskState,
} from "./src/train/task.ts";
export { Trainer, type TrainerContext } from "./src/train/trainer.ts";
export type { TrainerState } from "./src/checkpoint/trainer_state.ts";
export type { CheckpointEvent, EvaluatingEvent, EvaluationEvent, StepEvent, TrainEvent } from "./src/train/events.ts";
export type { TrainerOptions } from "./src/train/options.ts";
