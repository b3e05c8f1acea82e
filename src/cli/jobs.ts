/**
 * The jobs of `serve`: the worker in which they run, the configs that they may name, and the engine that serves their
 * models.
 */
import mid from "../../config/shakespeare_char_3m.ts";
import cpuSetting from "../../config/shakespeare_char_cpu.ts";
import type { TrainConfig } from "../../config/train_config.ts";
import babyGPT from "../../config/train_shakespeare_char.ts";
import { Jobs, type Publisher } from "../server/jobs.ts";
import type { Route } from "../server/routes.ts";
import { jobRoutes } from "../server/routes_jobs.ts";
import { runRoutes } from "../server/routes_runs.ts";
import type { WorkerEngine } from "../server/worker_engine.ts";
import type { Progress } from "./progress.ts";
import { type ServeValues, specsOf } from "./serve_flags.ts";

/** Configs of models that a job can train from scratch, by name: a job asks for the model `new:NAME`. */
export const jobConfigs: Readonly<Record<string, TrainConfig>> = {
  shakespeare_char_3m: mid,
  shakespeare_char_cpu: cpuSetting,
  train_shakespeare_char: babyGPT,
};

/** URL of the module of a job's worker. */
export const jobWorker = new URL("./job_worker.ts", import.meta.url);

/**
 * Opens the folder of `--jobs`, whose lock the caller holds.
 *
 * @throws {CheckpointError} if the folder cannot be written or is damaged
 */
export function openJobs(values: ServeValues, engine: WorkerEngine, progress: Progress): Promise<Jobs> {
  const { jobs: folder, device, slots, cache, threads } = values;
  const publisher: Publisher = {
    models: (key) => engine.models(key),
    source(id, key) {
      const spec = engine.spec(id, key);
      return spec && ("base" in spec ? spec.run : spec.path);
    },
    async list({ id, owner, created, path, base }) {
      const on = base === undefined ? undefined : engine.spec(base, owner),
        serving = { id, path, owner, created, lazy: true };
      if (base !== undefined && on && !("base" in on)) await engine.load({ ...serving, base });
      else await engine.load({ ...serving, weights: "f32", device, slots, cache, threads: threads || undefined });
    },
    unlist: (id) => engine.remove(id),
  };
  const configs = Object.keys(jobConfigs),
    onError = (error: unknown, job: string) => {
      progress.line(`job ${job}: ${error instanceof Error ? `${error.name}: ${error.message}` : error}`);
    };
  return Jobs.open({ folder, publisher, worker: jobWorker, configs, onError });
}

/** The routes that `--jobs` adds: for files, for jobs, and for the runs that are served. */
export function tuningRoutes(jobs: Jobs, values: ServeValues): readonly Route[] {
  return [...jobRoutes(jobs), ...runRoutes(specsOf(values).filter((spec) => !("base" in spec)))];
}
