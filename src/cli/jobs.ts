/** What the server's jobs need of the command line: the worker in which they run, and the configs that they may name. */
import cpuSetting from "../../config/shakespeare_char_cpu.ts";
import type { TrainConfig } from "../../config/train_config.ts";
import babyGPT from "../../config/train_shakespeare_char.ts";

/** Of models that are trained from scratch, by the names that `new:NAME` takes. */
export const jobConfigs: Readonly<Record<string, TrainConfig>> = {
  shakespeare_char_cpu: cpuSetting,
  train_shakespeare_char: babyGPT,
};

/** The module of a job's worker. */
export const jobWorker = new URL("./job_worker.ts", import.meta.url);
