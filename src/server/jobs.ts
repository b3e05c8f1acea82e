/**
 * Fine-tuning jobs: creates, checks, pauses and cancels them. Each job runs in its own worker and run folder. Every
 * event is in the database before a client can see it, so a restarted server resumes all jobs where they were.
 */
import { CheckpointError } from "../errors.ts";
import { isObject } from "../files/files.ts";
import { system } from "../files/system.ts";
import { Draining } from "./engine_api.ts";
import { ApiError, invalid, notFound } from "./errors.ts";
import type { Files } from "./files.ts";
import { JobContext, type JobsOptions } from "./job_context.ts";
import { clearJob } from "./job_folder.ts";
import { JobModels } from "./job_models.ts";
import { JobQueue } from "./job_queue.ts";
import type { JobRequest } from "./job_request.ts";
import { isOver, type JobState, newId, now, Store, type StoredFile, type StoredJob } from "./store.ts";

export type { JobsOptions, Publisher, TunedModel } from "./job_context.ts";

/** Maximum number of a key's jobs that are unfinished or have models. */
const MOST_JOBS = 100;
/** Maximum number of bytes of a job's file. Its contents can need ten times as many bytes in memory. */
const MOST_BYTES = 2 ** 27;
/** Seconds within which a repeated request creates no second job. */
const REPEATS = 600;
/** Maximum number of a job's checkpoints that clients asked for. */
const MOST_ASKED = 16;

export class Jobs implements AsyncDisposable {
  readonly models: JobModels;
  readonly #queue: JobQueue;

  private constructor(readonly context: JobContext) {
    this.models = new JobModels(context);
    this.#queue = new JobQueue(context, this.models);
  }

  get files(): Files {
    return this.context.files;
  }
  get store(): Store {
    return this.context.store;
  }

  /**
   * Opens the folder, and resumes unfinished jobs.
   *
   * @throws {CheckpointError} if the folder is damaged or cannot be written
   */
  static async open(options: JobsOptions): Promise<Jobs> {
    const { folder } = options;
    await system.mkdir(`${folder}/jobs`, { recursive: true }).catch((error) => {
      throw new CheckpointError(`Cannot write to ${folder}: ${error.message}`);
    });
    const store = new Store(`${folder}/jobs.sqlite`);
    try {
      const jobs = new Jobs(new JobContext(options, store));
      await jobs.files.open();
      for (const checkpoint of store.models()) await jobs.models.list(checkpoint);
      jobs.#queue.open();
      return jobs;
    } catch (error) {
      store[Symbol.dispose]();
      throw error;
    }
  }

  /** Returns a key's job. @throws {ApiError} 404 if the key has no job with this id */
  find(id: string, owner: string): StoredJob {
    const job = this.store.job(id, owner);
    if (job) return job;
    throw notFound(`The job '${id.slice(0, 80)}' does not exist or you do not have access to it`, "job_not_found");
  }

  /** Id of a job that needs the file; undefined if the file can be deleted. */
  readonly checkUnused = ({ id }: StoredFile): string | undefined =>
    this.store.jobsIn("validating_files", "queued", "running", "paused").find(({ state: { request } }) =>
      request.training_file === id || request.validation_file === id
    )?.id;

  /**
   * Creates a job.
   *
   * @param repeat `mark` identifies repeated requests; `again` says that this request is one
   * @throws {ApiError} naming the invalid parameter
   */
  async create(
    owner: string,
    request: JobRequest,
    repeat: { readonly mark: string; readonly again: boolean },
  ): Promise<StoredJob> {
    if (this.#queue.closing) throw new Draining("The server is shutting down");
    const { store } = this, before = repeat.again ? store.repeated(owner, repeat.mark, REPEATS) : undefined;
    if (before) return before;
    const file = await this.#fileOf(owner, request, "training_file");
    const held = request.validation_file === null ? undefined : await this.#fileOf(owner, request, "validation_file");
    this.#check(owner, request, file);
    if (store.countJobs(owner) >= MOST_JOBS) {
      throw new ApiError(403, `You have ${MOST_JOBS} jobs that are unfinished or have models; delete a model first`, {
        code: "job_limit_exceeded",
      });
    }
    const id = newId("ftjob-"), copies = file.bytes + (held?.bytes ?? 0);
    this.files.checkLeft(owner, "training_file", copies);
    const state: JobState = { request, copies, steps: 0, evaluations: 0, tokens: 0, results: [] };
    store.together(() => {
      store.addJob({ id, owner, created: now(), finished: null, status: "validating_files", state }, repeat.mark);
      this.context.say(id, {}, `Created fine-tuning job: ${id}`, `Validating training file: ${file.id}`);
    });
    void this.#queue.validate(id);
    return store.job(id)!;
  }

  /** Returns a request's file. @throws {ApiError} 404 if it does not exist, 400 if jobs cannot use it */
  async #fileOf(owner: string, request: JobRequest, name: "training_file" | "validation_file"): Promise<StoredFile> {
    const file = await this.files.find(request[name]!, owner, name);
    if (file.purpose !== "fine-tune") {
      throw invalid(name, `${name}: its purpose is ${file.purpose}; expected fine-tune`);
    }
    if (file.bytes <= MOST_BYTES) return file;
    throw invalid(
      name,
      `${name}: the file has ${file.bytes} bytes; a job's file has at most ${MOST_BYTES}`,
      "file_too_large",
    );
  }

  /**
   * @throws {ApiError} if the model does not exist or cannot be trained by this method, or the file does not suit the
   *   method
   */
  #check(owner: string, { model, method: { type, ...method } }: JobRequest, { ending }: StoredFile): void {
    const { publisher, configs } = this.context.options,
      [, fresh] = /^new:(.*)$/.exec(model) ?? [],
      isText = ending === "txt";
    if (fresh !== undefined) {
      if (!configs.includes(fresh)) {
        throw invalid(
          "model",
          `There is no config '${fresh.slice(0, 80)}'; new:NAME accepts ${configs.join(", ")}`,
          "model_not_found",
        );
      }
      if (type !== "supervised") {
        throw invalid("method.type", "A new model can only be trained on a text; expected supervised");
      }
    } else if (publisher.source(model, owner) === undefined) {
      if (publisher.models(owner).some(({ id }) => id === model)) {
        throw invalid(
          "model",
          "The model is an adapter without its run and cannot be trained further; name its base model",
        );
      }
      throw notFound(
        `The model '${model.slice(0, 80)}' does not exist or you do not have access to it; GET /v1/models lists yours`,
        ...["model_not_found", "model"] as const,
      );
    }
    if (isText && type !== "supervised") {
      throw invalid("training_file", `${type} needs rows, and a text has none; expected a file of JSON lines`);
    }
    const grader = isObject(method[type]) ? method[type].grader : undefined;
    if (!isObject(grader) || grader.type !== "score_model") return;
    if (publisher.source(String(grader.model), owner) !== undefined) return;
    throw invalid(
      `method.reinforcement.grader.model`,
      "The model does not exist or you do not have access to it; GET /v1/models lists yours",
      "model_not_found",
    );
  }

  /** Pauses a job. @throws {ApiError} 400 unless the job is running or queued */
  pause(job: StoredJob): StoredJob {
    if (job.status !== "running" && job.status !== "queued") throw wrongState(job, "paused", "queued or running");
    return this.#stop(job, "paused", "The job has been paused");
  }
  resume(job: StoredJob): StoredJob {
    if (job.status !== "paused") throw wrongState(job, "resumed", "paused");
    const { id } = job;
    this.store.together(() => this.context.say(id, { status: "queued" }, "The job has been resumed"));
    this.#queue.next(); // starts the job, unless its worker is still saving after the pause
    return this.store.job(id)!;
  }
  cancel(job: StoredJob): StoredJob {
    if (isOver(job.status)) throw wrongState(job, "cancelled", "an unfinished job");
    const stopped = this.#stop(job, "cancelled", "The job has been cancelled"), folder = this.context.folder(job.id);
    void (this.#queue.active(job.id)?.ended.promise ?? Promise.resolve()).then(() => clearJob(folder));
    return stopped;
  }
  #stop({ id }: StoredJob, status: "paused" | "cancelled", line: string): StoredJob {
    this.store.together(() => this.context.say(id, { status }, line));
    this.#queue.active(id)?.stop.abort();
    void this.#queue.ending([id]);
    return this.store.job(id)!;
  }
  /** Saves a checkpoint of a running job now. */
  save(job: StoredJob): void {
    const active = this.#queue.active(job.id);
    if (job.status !== "running" || !active?.worker) throw wrongState(job, "saved", "running");
    const [all] = this.store.checkpoints(job.id, { limit: 1000 });
    if (all.filter(({ asked }) => asked).length >= MOST_ASKED) {
      throw invalid(
        null,
        `The job has ${MOST_ASKED} checkpoints that were asked for; delete one of their models first`,
        "checkpoint_limit_exceeded",
      );
    }
    this.#queue.post(active, { kind: "save" });
  }

  /** Starts no more jobs, and lets running jobs save. They resume when the folder is opened again. */
  drain(): Promise<void> {
    return this.#queue.drain();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain();
    this.store[Symbol.dispose]();
  }
}

const wrongState = ({ id, status }: StoredJob, what: string, expected: string) =>
  invalid(null, `The job ${id} is ${status} and cannot be ${what}; expected ${expected}`, "invalid_state");
