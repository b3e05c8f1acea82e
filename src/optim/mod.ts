/** The optimizer, and its learning rate by iteration. */
export * from "./adamw.ts";
export { learningRate, type ScheduleOptions } from "./schedule.ts";
