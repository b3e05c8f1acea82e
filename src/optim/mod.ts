/** The optimizer, and its learning rate by iteration. */
export {
  AdamW,
  type AdamWOptions,
  type NamedParameter,
  type ParameterGroup,
  type Rates,
  type StepOptions,
} from "./adamw.ts";
export { learningRate, type ScheduleOptions } from "./schedule.ts";
