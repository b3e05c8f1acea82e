/**
 * Models by their names: GPT-2 from Hugging Face's hub, runs, folders and files, and the pipeline over them.
 *
 * @module
 */
export { downloadModel, HUB_MODELS, type HubModel, type HubOptions, type HubProgress, isHubModel } from "./hub.ts";
export { findModel, type FoundModel, loadPretrained, type Pretrained, type PretrainedOptions } from "./load.ts";
export {
  type GeneratedText,
  pipeline,
  type PipelineOptions,
  setSeed,
  type TextGenerationOptions,
  type TextGenerationPipeline,
} from "./pipeline.ts";
