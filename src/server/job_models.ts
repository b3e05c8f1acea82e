/** The models that jobs make: each is a checkpoint, in a run folder of its own. */
import { ConfigError } from "../errors.ts";
import { exists } from "../files/files.ts";
import { invalid, notFound } from "./errors.ts";
import type { JobContext } from "./job_context.ts";
import { isAdapter, removeAll } from "./job_folder.ts";
import { checkpointFolder } from "./job_messages.ts";
import type { JobRequest, StoredCheckpoint } from "./store.ts";

/** Checkpoints of a job that are kept of those that came by themselves. */
const KEPT = 5;

export class JobModels {
  constructor(readonly context: JobContext) {}

  /** Serves a checkpoint from now on. */
  async list({ job, step, model, created }: StoredCheckpoint): Promise<void> {
    const path = checkpointFolder(this.context.folder(job), step);
    if (!await exists(`${path}/run.json`)) return this.context.store.removeCheckpoint(model);
    const { owner, state } = this.context.store.job(job)!,
      base = await isAdapter(path) ? state.request.model : undefined;
    try {
      await this.context.options.publisher.list({ id: model, owner, created, path, base });
    } catch (error) { // such as a base that is not served any more: jobs go on all the same
      this.context.report(error, job);
    }
  }
  async #remove({ job, step, model }: StoredCheckpoint): Promise<void> {
    this.context.options.publisher.unlist(model);
    this.context.store.removeCheckpoint(model);
    await removeAll(checkpointFolder(this.context.folder(job), step));
  }

  /** Serves it no longer; where texts of it are being written, until the server ends. */
  unlist(model: string): void {
    try {
      this.context.options.publisher.unlist(model);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
    }
  }
  /** Removes the oldest of a job's checkpoints that nobody asked for and nothing needs. */
  async prune(job: string): Promise<void> {
    const [all] = this.context.store.checkpoints(job, { limit: 1000 });
    for (const old of all.filter(({ asked }) => !asked).slice(KEPT)) {
      if (this.#userOf(old) !== undefined) continue; // the next checkpoint tries again
      try {
        await this.#remove(old);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error; // texts are being written
      }
    }
  }

  /** What needs a model besides texts that are written; undefined where it may go. */
  #userOf({ job: of, step, model }: StoredCheckpoint): string | undefined {
    const { store } = this.context, path = checkpointFolder(this.context.folder(of), step);
    const job = store.jobsIn("validating_files", "queued", "running", "paused").find(({ state: { request, order } }) =>
      request.model === model || order?.values.init_from === path ||
      order?.grader?.type === "score_model" && order.grader.model === model
    );
    if (job) return `the job ${job.id} needs it`;
    const heir = store.models().find(({ job }) => {
      const { lora_rank, init_from } = store.job(job)!.state.order!.values;
      return init_from === path && lora_rank !== undefined;
    });
    return heir && `${heir.model} is an adapter of it`;
  }

  /**
   * Deletes a model that a job has made.
   *
   * @throws {ApiError} 404 for one that is not there or another's, 400 for one that is in use
   */
  async delete(id: string, owner: string): Promise<void> {
    const { store } = this.context, found = store.models().find(({ model }) => model === id);
    if (!found || !store.job(found.job, owner)) {
      throw notFound(
        `The model '${id.slice(0, 80)}' does not exist, is not yours, or was not made by a job`,
        "model_not_found",
        "model",
      );
    }
    const user = this.#userOf(found);
    if (user !== undefined) throw invalid("model", `The model is in use: ${user}`, "model_in_use");
    try {
      await this.#remove(found);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      throw invalid(
        "model",
        "The model is in use: texts of it are being written, or adapters stand on it",
        "model_in_use",
      );
    }
  }
}

/** As OpenAI names them: what was tuned, by whom, the client's suffix, and which. */
export function modelName(id: string, { model, suffix }: JobRequest): string {
  const base = model.replace(/^new:/, "").replace(/^ft:([^:]*):.*$/, "$1");
  return `ft:${base}:local:${suffix ?? ""}:${id.slice("ftjob-".length, "ftjob-".length + 8)}`;
}
