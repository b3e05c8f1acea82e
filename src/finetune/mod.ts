/** Tuning a model to a task: LoRA adapters, and PEFT's folders in and out. */
export {
  adapterConfig,
  loadAdapter,
  type LoadAdapterOptions,
  saveAdapter,
  type SaveAdapterOptions,
} from "./adapter.ts";
export { applyLora, Lora, LoraLinear, type LoraOptions } from "./lora.ts";
