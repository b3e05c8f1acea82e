/** Tuning a model to a task: LoRA adapters, and PEFT's folders in and out. */
export {
  adapterConfig,
  loadAdapter,
  type LoadAdapterOptions,
  saveAdapter,
  type SaveAdapterOptions,
  trainedAdapter,
} from "./adapter.ts";
export { adaptersOf, applyLora, Lora, LoraLinear, type LoraOptions } from "./lora.ts";
