/**
 * Tuning jobs: who may have one, which runs now, and what is known of them. Each runs in a worker of its own, in a run folder; what has
 * happened stands in the database before a client hears of it, so after the end of a process all goes on where it was.
 */
import { CheckpointError, ConfigError } from "../errors.ts";
import { exists, isObject } from "../files/files.ts";
import { Lock } from "../files/locks.ts";
import { system } from "../files/system.ts";
import { ApiError, invalid, notFound } from "./errors.ts";
import { Draining, type ServedModel } from "./engine_api.ts";
import { Files } from "./files.ts";
import { availableBytes, isAdapter, removeAll } from "./job_folder.ts";
import { checkpointFolder, type FromJob, type ToJob } from "./job_messages.ts";
import { jobError, planJob } from "./job_plan.ts";
import { prepareRows } from "./job_rows.ts";
import { Progressed } from "./job_events.ts";
import { toWire, type WireError } from "./messages.ts";
import {
  DiskFull,
  isFull,
  isOver,
  type JobRequest,
  type JobState,
  newId,
  now,
  Store,
  type StoredCheckpoint,
  type StoredFile,
  type StoredJob,
} from "./store.ts";

/** What jobs make is served by. */
export interface Publisher {
  models(key?: string): readonly ServedModel[];
  /** Where a model lies, as `loadPretrained` takes it; undefined where the key has none of this name. */
  source(id: string, key?: string): string | undefined;
  /** Serves a model from now on: it is loaded when it is asked for. */
  list(model: TunedModel): Promise<void>;
  /** Serves it no longer. @throws {ConfigError} when it is in use */
  unlist(id: string): void;
}

/** A model that a job has made. */
export interface TunedModel {
  readonly id: string;
  readonly owner: string;
  readonly created: number;
  /** Of a run folder. */ readonly path: string;
  /** Where only an adapter was trained: the model that it stands on, as clients name it. */ readonly base?: string;
}

export interface JobsOptions {
  /** Where all of it is kept. */ readonly folder: string;
  readonly publisher: Publisher;
  /** The module of a job's worker. */ readonly worker: URL;
  /** Names of configs, which `new:NAME` takes. */ readonly configs: readonly string[];
  /** Jobs at once; of a key there is one at most. Default 1. */ readonly atOnce?: number;
  /** Threads of a job. Default: half of the processors. */ readonly threads?: number;
  /** Seconds from one look at a full disk to the next. Default 15. */ readonly roomSeconds?: number;
  /** Takes what nobody threw on purpose. Default: standard error. */ readonly onError?: (
    error: unknown,
    job: string,
  ) => void;
}

/** Jobs of a key that are not over, or have models. */
const MOST_JOBS = 100;
/** Seconds within which a repeated request makes no second job. */
const REPEATS = 600;
/** Checkpoints of a job that are kept: the newest that came by themselves, and those that were asked for. */
const KEPT = 5, KEPT_ASKED = 16;
/** Bytes that are left free beside two checkpoints. */
const SPARE = 2 ** 22;
/** Milliseconds that a worker has to save and to end. */
const TO_END = 25_000;

/** A job that something is done for now. */
interface Active {
  readonly owner: string;
  readonly stop: AbortController;
  worker?: Worker;
  /** When nothing is done any more. */
  readonly ended: PromiseWithResolvers<void>;
}

export class Jobs implements AsyncDisposable {
  readonly files: Files;
  readonly #active = new Map<string, Active>();
  /** Jobs that wait for room on the disk. */
  readonly #waiting = new Map<string, ReturnType<typeof setTimeout>>();
  #closing = false;

  private constructor(readonly options: JobsOptions, readonly store: Store, readonly lock: Lock) {
    this.files = new Files(`${options.folder}/files`, store);
  }

  /**
   * Opens the folder, and goes on with what was under way.
   *
   * @throws {CheckpointError} when another server has it, naming that one, or it cannot be written or is damaged
   */
  static async open(options: JobsOptions): Promise<Jobs> {
    const { folder } = options;
    await system.mkdir(`${folder}/jobs`, { recursive: true }).catch((error) => {
      throw new CheckpointError(`Cannot write to ${folder}: ${error.message}`);
    });
    const lock = await Lock.take(folder);
    let store: Store | undefined;
    try {
      store = new Store(`${folder}/jobs.sqlite`);
      const jobs = new Jobs(options, store, lock);
      await jobs.files.open();
      for (const checkpoint of store.models()) await jobs.#list(checkpoint);
      for (const { id, status } of store.jobsIn("running", "validating_files")) {
        if (status === "running") store.change(id, { status: "queued" });
        else void jobs.#validate(id);
      }
      jobs.#next();
      return jobs;
    } catch (error) {
      store?.[Symbol.dispose]();
      lock[Symbol.dispose]();
      throw error;
    }
  }

  #report(error: unknown, id: string): void {
    const { onError = (error, job) => console.error(`job ${job}:`, error) } = this.options;
    onError(error, id);
  }
  #folder(id: string): string {
    return `${this.options.folder}/jobs/${id}`;
  }

  /** @throws {ApiError} 404 */
  find(id: string, owner: string): StoredJob {
    const job = this.store.job(id, owner);
    if (job) return job;
    throw notFound(`There is no job '${id.slice(0, 80)}', or it is not yours`, "job_not_found");
  }

  /** The job that needs a file; undefined where it may go. */
  readonly checkUnused = ({ id }: StoredFile): string | undefined =>
    this.store.jobsIn("validating_files", "queued", "running", "paused").find(({ state: { request } }) =>
      request.training_file === id || request.validation_file === id
    )?.id;

  /**
   * Begins a job.
   *
   * @param repeat by which the client's repeated request is known; `again` where it says that this is one
   * @throws {ApiError} naming the parameter that is wrong
   */
  async create(
    owner: string,
    request: JobRequest,
    repeat: { readonly mark: string; readonly again: boolean },
  ): Promise<StoredJob> {
    this.#checkOpen();
    const { store } = this, before = repeat.again ? store.repeated(owner, repeat.mark, REPEATS) : undefined;
    if (before) return before;
    const file = await this.files.find(request.training_file, owner, "training_file");
    if (request.validation_file !== null) await this.files.find(request.validation_file, owner, "validation_file");
    this.#check(owner, request, file);
    if (store.countJobs(owner) >= MOST_JOBS) {
      throw new ApiError(403, `You have ${MOST_JOBS} jobs that wait, run or have models: delete a model first`, {
        code: "job_limit_exceeded",
      });
    }
    const id = newId("ftjob-"), state: JobState = { request, steps: 0, evaluations: 0, tokens: 0, results: [] };
    store.together(() => {
      store.addJob({ id, owner, created: now(), finished: null, status: "validating_files", state }, repeat.mark);
      this.#say(id, {}, `Created fine-tuning job: ${id}`, `Validating training file: ${file.id}`);
    });
    void this.#validate(id);
    return store.job(id)!;
  }

  /** @throws {ApiError} for a model that is not there or cannot be tuned in this way, and a file that does not go with it */
  #check(owner: string, { model, method: { type, ...method } }: JobRequest, { ending }: StoredFile): void {
    const { publisher, configs } = this.options, [, fresh] = /^new:(.*)$/.exec(model) ?? [], isText = ending === "txt";
    if (fresh !== undefined) {
      if (!configs.includes(fresh)) {
        throw invalid(
          "model",
          `There is no config '${fresh.slice(0, 80)}': new:NAME takes ${configs.join(", ")}`,
          "model_not_found",
        );
      }
      if (type !== "supervised") throw invalid("method.type", "A new model learns a text: expected supervised");
    } else if (publisher.source(model, owner) === undefined) {
      if (publisher.models(owner).some(({ id }) => id === model)) {
        throw invalid(
          "model",
          "The model is an adapter without its run, and cannot be tuned: name the model that it stands on",
        );
      }
      throw notFound(
        `The model '${model.slice(0, 80)}' does not exist, or is not yours: GET /v1/models lists those that there are`,
        ...["model_not_found", "model"] as const,
      );
    }
    if (isText && type !== "supervised") {
      throw invalid("training_file", `A text has no rows, which ${type} needs: expected a file of JSON lines`);
    }
    const grader = isObject(method[type]) ? method[type].grader : undefined;
    if (!isObject(grader) || grader.type !== "score_model") return;
    if (publisher.source(String(grader.model), owner) !== undefined) return;
    throw invalid(
      `method.reinforcement.grader.model`,
      "There is no such model: GET /v1/models lists those that there are",
      "model_not_found",
    );
  }

  /** Changes a job, and tells of it in lines. */
  #say(id: string, change: Parameters<Store["change"]>[1], ...lines: string[]): void {
    const level = change.status === "failed" ? "error" as const : "info" as const;
    this.store.change(id, change, lines.map((message) => ({ level, type: "message", message, data: null })));
  }

  /** Reads a job's files, and queues it. */
  async #validate(id: string): Promise<void> {
    const { store, options: { publisher, threads } } = this, { owner, state: { request } } = store.job(id)!;
    const active = this.#begin(id, owner), folder = this.#folder(id), { signal } = active.stop;
    const fresh = request.model.startsWith("new:");
    try {
      await system.mkdir(folder, { recursive: true });
      const prepare = async (name: "training_file" | "validation_file") => {
        const file = store.file(request[name]!, owner);
        if (!file) throw invalid(name, `${name}: the file has been deleted`);
        const isText = fresh || file.ending === "txt", output = `${folder}/${name}.${isText ? "txt" : "jsonl"}`;
        const method = isText ? "text" : request.method.type;
        return { output, found: await prepareRows({ path: this.files.path(file), method, output }, signal) };
      };
      const train = await prepare("training_file"),
        val = request.validation_file === null ? undefined : await prepare("validation_file");
      const { output, found } = train;
      if (found.rows === 1 && !val) {
        throw new InvalidFile("the file has one row, and none to evaluate on: expected two or more");
      }
      const served = publisher.models(owner).find(({ id }) => id === request.model),
        path = publisher.source(request.model, owner);
      if (!fresh && (!served || path === undefined)) {
        throw invalid("model", `The model ${request.model} is not served any more`);
      }
      const { grader } = request.method.reinforcement as { grader?: { model?: string } } ?? {};
      const plan = planJob({
        ...{ request, folder, train: output, found },
        ...val && { val: val.output },
        ...served && path !== undefined && { model: { served, path } },
        scorer: grader?.model === undefined ? undefined : publisher.source(grader.model, owner),
        threads: threads ?? Math.max(1, Math.floor(navigator.hardwareConcurrency / 2)),
      });
      store.together(() => {
        if (store.job(id)!.status !== "validating_files") return; // cancelled
        this.#say(id, { status: "queued", ...plan }, "Files validated, moving job to queued state");
      });
    } catch (error) {
      const wire = error instanceof ApiError ? { name: "ApiError", message: error.message } : toWire(error);
      if (!signal.aborted) await this.#fail(id, wire, error);
    }
    this.#end(id, active);
  }

  #begin(id: string, owner: string): Active {
    const active: Active = { owner, stop: new AbortController(), ended: Promise.withResolvers() };
    this.#active.set(id, active);
    return active;
  }
  #end(id: string, active: Active): void {
    if (this.#active.get(id) !== active) return;
    active.worker?.terminate();
    this.#active.delete(id);
    active.ended.resolve();
    this.#next();
  }
  async #fail(id: string, wire: WireError, error: unknown = new Error(`${wire.name}: ${wire.message}`)): Promise<void> {
    const folder = this.#folder(id);
    const { state: { request, order } } = this.store.job(id)!,
      places = `${folder}/training_file.jsonl.where`,
      where = await exists(places) ? new TextDecoder().decode(await system.readFile(places)).split("\n") : [];
    const paths = [
      ...[[`${folder}/training_file.jsonl`, "training_file"], [
        `${folder}/training_file.txt`,
        "training_file",
      ]] as const,
      ...[[`${folder}/validation_file.jsonl`, "validation_file"], [`${folder}/run`, "the job's run"]] as const,
      ...[[folder, "the job's folder"], [String(order?.values.init_from ?? folder), request.model]] as const,
    ];
    const known = wire.name === "ApiError"
      ? { code: "invalid_request", message: wire.message, param: null }
      : jobError(wire, { where, paths });
    if (!known) this.#report(error, id);
    const told = known ??
      { code: "internal_error", message: "The job has failed; the server's log says why", param: null };
    this.store.together(() => this.#say(id, { status: "failed", error: told }, `The job failed: ${told.message}`));
    await removeAll(`${folder}/run`).catch(() => {});
  }

  /** Starts what may run. */
  #next(): void {
    if (this.#closing) return;
    const running = () => [...this.#active.values()].filter(({ worker }) => worker);
    for (const job of this.store.jobsIn("queued")) {
      if (running().length >= (this.options.atOnce ?? 1)) return;
      if (running().some(({ owner }) => owner === job.owner) || this.#active.has(job.id)) continue;
      this.#start(job);
    }
  }
  #start({ id, owner, state }: StoredJob): void {
    const active = this.#begin(id, owner), worker = active.worker = new Worker(this.options.worker, { type: "module" });
    const goesOn = state.total !== undefined;
    this.store.together(() =>
      this.#say(id, { status: "running" }, goesOn ? "Fine-tuning job goes on" : "Fine-tuning job started")
    );
    const progress = new Progressed(this.store, id);
    let turns = Promise.resolve();
    worker.onmessage = ({ data }: MessageEvent<FromJob>) => {
      turns = turns.then(() => this.#hear(id, active, data, progress)).catch((error) => this.#crash(id, active, error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      void this.#crash(id, active, new Error(event.message));
    };
    active.stop.signal.addEventListener("abort", () => this.#post(active, { kind: "stop" }));
    this.#post(active, { kind: "start", order: state.order! });
  }
  #post({ worker }: Active, message: ToJob): void {
    worker?.postMessage(message);
  }
  async #crash(id: string, active: Active, error: unknown): Promise<void> {
    if (this.#active.get(id) !== active) return;
    try {
      if (error instanceof DiskFull) this.#waitForRoom(id);
      else if (this.store.job(id)!.status === "running") await this.#fail(id, toWire(error), error);
    } catch (error) { // there is no room to say so
      if (!isFull(error)) this.#report(error, id);
      this.#waitForRoom(id);
    }
    this.#end(id, active);
  }
  /** A job that finds the disk full goes on from its last checkpoint when there is room for two more. */
  #waitForRoom(id: string): void {
    if (!this.#waiting.has(id)) this.#report(new DiskFull(), id);
    this.#waiting.set(
      id,
      setTimeout(() => {
        const { status, state: { bytes = 0 } } = this.store.job(id)!,
          left = availableBytes(this.options.folder) ?? Infinity;
        if (this.#closing || isOver(status) || status === "paused") return void this.#waiting.delete(id);
        try {
          if (left < 2 * bytes + SPARE) throw new DiskFull();
          const level = "warn", message = "The server's disk was full: the job goes on where it last saved";
          this.store.together(() =>
            this.store.change(id, { status: "queued" }, [{ level, message, type: "message", data: null }])
          );
        } catch (error) {
          if (isFull(error)) return this.#waitForRoom(id);
          this.#report(error, id);
        }
        this.#waiting.delete(id);
        this.#next();
      }, 1000 * (this.options.roomSeconds ?? 15)),
    );
  }

  async #hear(id: string, active: Active, message: FromJob, progress: Progressed): Promise<void> {
    if (this.#active.get(id) !== active) return;
    const { store } = this, { status, owner, state } = store.job(id)!;
    if (message.kind === "stopped") {
      if (status === "running") store.together(() => store.change(id, { status: "queued" })); // the server ends
      return this.#end(id, active);
    }
    if (status !== "running") { // paused or cancelled meanwhile
      if (message.kind === "done" || message.kind === "failed") return this.#end(id, active);
      if (status === "cancelled") return;
    }
    if (message.kind === "begun") store.change(id, { total: message.total, bytes: message.bytes });
    else if (message.kind === "metrics") progress.metrics(message.lines);
    else if (message.kind === "checkpoint") await this.#checkpoint(id, message, progress);
    else if (message.kind === "failed") {
      if (isFull(message.error.message)) throw new DiskFull();
      await this.#fail(id, message.error);
      this.#end(id, active);
    } else { // done
      const tuned = modelName(id, state.request), folder = this.#folder(id);
      const { model } = store.checkpoints(id, { limit: 1000 })[0].find(({ step }) => step === message.iter) ?? {};
      await this.files.adopt(owner, message.files, (results) => {
        const told = [`New fine-tuned model created: ${tuned}`, "The job has successfully completed"];
        if (model !== undefined) store.renameModel(model, tuned);
        this.#say(id, { status: "succeeded", tuned, results }, ...told);
      });
      try {
        if (model !== undefined) this.options.publisher.unlist(model);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error; // texts are being written: it stays until the server ends
      }
      await this.#list(store.models().find(({ model }) => model === tuned)!);
      this.#end(id, active);
      for await (const { name } of system.readDir(folder)) {
        if (name !== "checkpoints") await removeAll(`${folder}/${name}`).catch(() => {});
      }
    }
  }

  async #checkpoint(
    id: string,
    { iter, asked }: Extract<FromJob, { kind: "checkpoint" }>,
    progress: Progressed,
  ): Promise<void> {
    const { store } = this, { state } = store.job(id)!, model = `${modelName(id, state.request)}:ckpt-step-${iter}`;
    const checkpoint: StoredCheckpoint = {
      ...{ id: newId("ftckpt_"), job: id, step: iter, created: now(), model, asked, metrics: state.metrics ?? {} },
    };
    if (store.checkpoints(id, { limit: 1000 })[0].some(({ step }) => step === iter)) return; // a restart tells of it again
    await this.#list(checkpoint);
    progress.checkpoint(checkpoint);
    const [all] = store.checkpoints(id, { limit: 1000 });
    for (const old of all.filter(({ asked }) => !asked).slice(KEPT)) {
      if (this.#userOf(old) !== undefined) continue; // the next checkpoint tries again
      try {
        await this.#remove(old);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error; // texts are being written
      }
    }
  }
  async #list({ job, step, model, created }: StoredCheckpoint): Promise<void> {
    const path = checkpointFolder(this.#folder(job), step);
    if (!await exists(`${path}/run.json`)) return this.store.removeCheckpoint(model);
    const { owner, state } = this.store.job(job)!, base = await isAdapter(path) ? state.request.model : undefined;
    try {
      await this.options.publisher.list({ id: model, owner, created, path, base });
    } catch (error) { // such as a base that is not served any more: jobs go on all the same
      this.#report(error, job);
    }
  }
  async #remove({ job, step, model }: StoredCheckpoint): Promise<void> {
    this.options.publisher.unlist(model);
    this.store.removeCheckpoint(model);
    await removeAll(checkpointFolder(this.#folder(job), step));
  }

  /** What needs a model besides texts that are written; undefined where it may go. */
  #userOf({ job: of, step, model }: StoredCheckpoint): string | undefined {
    const { store } = this, path = checkpointFolder(this.#folder(of), step);
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
  async deleteModel(id: string, owner: string): Promise<void> {
    const { store } = this, found = store.models().find(({ model }) => model === id);
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

  /** @throws {ApiError} 400 where its state does not allow it */
  pause(job: StoredJob): StoredJob {
    if (job.status !== "running" && job.status !== "queued") throw wrongState(job, "paused", "queued or running");
    return this.#stop(job, "paused", "The job has been paused");
  }
  resume(job: StoredJob): StoredJob {
    if (job.status !== "paused") throw wrongState(job, "resumed", "paused");
    const { id } = job;
    this.store.together(() => this.#say(id, { status: "queued" }, "The job has been resumed"));
    this.#next(); // or when what is still saving has ended
    return this.store.job(id)!;
  }
  cancel(job: StoredJob): StoredJob {
    if (isOver(job.status)) throw wrongState(job, "cancelled", "one that is not over");
    const stopped = this.#stop(job, "cancelled", "The job has been cancelled"), folder = this.#folder(job.id);
    const clear = () => void removeAll(`${folder}/run`).catch(() => {});
    void (this.#active.get(job.id)?.ended.promise ?? Promise.resolve()).then(clear);
    return stopped;
  }
  #stop({ id }: StoredJob, status: "paused" | "cancelled", line: string): StoredJob {
    this.store.together(() => this.#say(id, { status }, line));
    this.#active.get(id)?.stop.abort();
    void this.#ending([id]);
    return this.store.job(id)!;
  }
  /** Saves a checkpoint of a running job now. */
  save(job: StoredJob): void {
    const active = this.#active.get(job.id);
    if (job.status !== "running" || !active?.worker) throw wrongState(job, "saved", "running");
    const [all] = this.store.checkpoints(job.id, { limit: 1000 });
    if (all.filter(({ asked }) => asked).length >= KEPT_ASKED) {
      throw invalid(
        null,
        `The job has ${KEPT_ASKED} checkpoints that were asked for: delete one of their models first`,
        "checkpoint_limit_exceeded",
      );
    }
    this.#post(active, { kind: "save" });
  }

  /** Waits until what is done for these jobs has ended, and ends it where that takes too long. */
  async #ending(ids: readonly string[]): Promise<void> {
    await Promise.all(ids.map(async (id) => {
      const active = this.#active.get(id), late = Promise.withResolvers<void>();
      if (!active) return;
      const timer = setTimeout(late.resolve, TO_END);
      await Promise.race([late.promise, active.ended.promise]);
      clearTimeout(timer);
      this.#end(id, active);
    }));
  }

  #checkOpen(): void {
    if (this.#closing) throw new Draining("The server is shutting down");
  }
  /** Has running jobs save, to go on when the folder is opened again, and begins no other. */
  async drain(): Promise<void> {
    this.#closing = true;
    for (const { stop } of this.#active.values()) stop.abort();
    await this.#ending([...this.#active.keys()]);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain();
    for (const timer of this.#waiting.values()) clearTimeout(timer);
    this.store[Symbol.dispose]();
    this.lock[Symbol.dispose]();
  }
}

/** What is wrong with a client's file. */
class InvalidFile extends Error {
  override name = "DataError";
}

const wrongState = ({ id, status }: StoredJob, what: string, expected: string) =>
  invalid(null, `The job ${id} is ${status} and cannot be ${what}: expected ${expected}`, "invalid_state");

/** As OpenAI names them: what was tuned, by whom, the client's suffix, and which. */
function modelName(id: string, { model, suffix }: JobRequest): string {
  const base = model.replace(/^new:/, "").replace(/^ft:([^:]*):.*$/, "$1");
  return `ft:${base}:local:${suffix ?? ""}:${id.slice("ftjob-".length, "ftjob-".length + 8)}`;
}
