/**
 * Loads models by their names: GPT-2 from Hugging Face's hub, runs, folders and files. Also has pipelines like
 * transformers'.
 *
 * @module
 */
export { Chat, type ChatOptions } from "./chat.ts";
export * from "./hub.ts";
export {
  describePretrained,
  type Description,
  findModel,
  type FoundModel,
  identifyModel,
  loadBase,
  loadPretrained,
  type Pretrained,
  type PretrainedOptions,
} from "./load.ts";
export * from "./pipeline.ts";
export type { FeatureExtractionOptions, FeatureExtractionPipeline, TextFeatures } from "./feature_extraction.ts";
export { loadHead, type PretrainedHead } from "./load_head.ts";
export type { SummarizationOptions, SummarizationPipeline, Summary } from "./summarization.ts";
export type {
  ClassificationOptions,
  ClassifiedText,
  TextClassificationPipeline,
  TextPair,
} from "./text_classification.ts";
