/** The models that jobs make. Each is a checkpoint in its own run folder. */
import { ConfigError } from "../errors.ts";
import { exists } from "../files/files.ts";
import { invalid, notFound } from "./errors.ts";
import type { JobContext } from "./job_context.ts";
import { isAdapter, removeAll } from "./job_folder.ts";
import { checkpointFolder } from "./job_messages.ts";
import type { JobRequest } from "./job_request.ts";
import type { StoredCheckpoint } from "./store.ts";

/** Number of automatic checkpoints of a job that are retained. */
const KEPT = 5;

export class JobModels {
  constructor(readonly context: JobContext) {}

  /** Starts to serve a checkpoint. */
  async list({ job, step, model, created }: StoredCheckpoint): Promise<void> {
    const path = checkpointFolder(this.context.folder(job), step);
    if (!await exists(`${path}/run.json`)) return this.context.store.removeCheckpoint(model);
    const { owner, state } = this.context.store.job(job)!,
      base = await isAdapter(path) ? state.request.model : undefined;
    try {
      await this.context.options.publisher.list({ id: model, owner, created, path, base });
    } catch (error) { // for example, the adapter's base model is no longer served: the job continues
      this.context.report(error, job);
    }
  }
  async #remove({ job, step, model }: StoredCheckpoint): Promise<void> {
    this.context.options.publisher.unlist(model);
    this.context.store.removeCheckpoint(model);
    await removeAll(checkpointFolder(this.context.folder(job), step));
  }

  /** Stops serving a model. A model that is generating a text is served until the server ends. */
  unlist(model: string): void {
    try {
      this.context.options.publisher.unlist(model);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
    }
  }
  /** Removes a job's oldest automatic checkpoints, except models that are in use. */
  async prune(job: string): Promise<void> {
    const [all] = this.context.store.checkpoints(job, { limit: 1000 });
    for (const old of all.filter(({ asked }) => !asked).slice(KEPT)) {
      if (this.#userOf(old) !== undefined) continue; // after the next checkpoint, this is tried again
      try {
        await this.#remove(old);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error; // it is generating a text
      }
    }
  }

  /** Says which job or adapter needs a model; undefined if none does. */
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
   * @throws {ApiError} 404 if the model does not exist or belongs to another key, 400 if it is in use
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
        "The model is in use: it is generating texts, or it is the base of an adapter",
        "model_in_use",
      );
    }
  }
}

/** The name of a job's model, as in OpenAI's API: base model, organization, the client's suffix, and the job. */
export function modelName(id: string, { model, suffix }: JobRequest): string {
  const base = model.replace(/^new:/, "").replace(/^ft:([^:]*):.*$/, "$1");
  return `ft:${base}:local:${suffix ?? ""}:${id.slice("ftjob-".length, "ftjob-".length + 8)}`;
}
