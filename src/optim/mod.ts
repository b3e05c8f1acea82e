/**
 * The AdamW optimizer, as in PyTorch, and nanoGPT's learning rate schedule.
 *
 * @module
 */
export * from "./adamw.ts";
export { learningRate, type ScheduleOptions } from "./schedule.ts";
