/**
 * The optimizer, AdamW as PyTorch has it, and nanoGPT's learning rate by iteration.
 *
 * @module
 */
export * from "./adamw.ts";
export { learningRate, type ScheduleOptions } from "./schedule.ts";
