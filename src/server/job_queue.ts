/**
 * The queue of jobs. A job's files are validated, then it waits for its turn and runs in a worker. What the worker
 * reports is in the database before a client can see it.
 */
import { exists } from "../files/files.ts";
import { system } from "../files/system.ts";
import { ApiError, DiskFull, invalid, isFull } from "./errors.ts";
import type { JobContext } from "./job_context.ts";
import { Progressed } from "./job_events.ts";
import { availableBytes, clearJob } from "./job_folder.ts";
import type { FromJob, ToJob } from "./job_messages.ts";
import { type JobModels, modelName } from "./job_models.ts";
import { jobError, planJob } from "./job_plan.ts";
import { prepareRows } from "./job_rows.ts";
import { toWire, type WireError } from "./messages.ts";
import { isOver, newId, now, type StoredCheckpoint, type StoredJob } from "./store.ts";

/** Bytes that stay free on the disk in addition to two checkpoints. */
const SPARE = 2 ** 22;
/** Milliseconds that a worker has to save and to exit. */
const TO_END = 25_000;

/**
 * Maximum number of starts of a job without progress. A job can end the whole process, for example when memory runs
 * out.
 */
const MOST_STARTS = 5;

const INTERNAL = "The job failed with an internal error; see the server's log";

/** A job that is being validated or run. */
export interface Active {
  readonly owner: string;
  readonly stop: AbortController;
  worker?: Worker;
  /** Resolves when the work on the job has ended. */
  readonly ended: PromiseWithResolvers<void>;
}

export class JobQueue {
  readonly #active = new Map<string, Active>();
  /** Timers of jobs that wait for room on the disk. */
  readonly #waiting = new Map<string, ReturnType<typeof setTimeout>>();
  /** Whether the queue is closing, and starts no more jobs. */ closing = false;

  constructor(readonly context: JobContext, readonly models: JobModels) {}

  /** Continues the jobs that were being validated or run when the server ended, and starts queued jobs. */
  open(): void {
    const { store } = this.context;
    for (const { id, status, state: { starts = 0 } } of store.jobsIn("running", "validating_files")) {
      if (status === "validating_files") void this.validate(id);
      else if (starts < MOST_STARTS) store.change(id, { status: "queued" });
      else {
        const message = `The server ended ${starts} times before this job made progress`;
        const change = { status: "failed", error: { code: "server_error", message, param: null } } as const;
        store.together(() => this.context.say(id, change, `The job failed: ${message}`));
      }
    }
    this.next();
  }
  /** The running work on a job, if any. */
  active(id: string): Active | undefined {
    return this.#active.get(id);
  }

  /** Validates a job's files, then queues the job. */
  async validate(id: string): Promise<void> {
    const { store, files, options: { publisher, threads } } = this.context;
    const { owner, state: { request, copies: counted = 0 } } = store.job(id)!;
    const active = this.#begin(id, owner), folder = this.context.folder(id), { signal } = active.stop;
    const fresh = request.model.startsWith("new:");
    try {
      await system.mkdir(folder, { recursive: true });
      const prepare = async (name: "training_file" | "validation_file") => {
        const file = store.file(request[name]!, owner);
        if (!file) throw invalid(name, `${name}: the file has been deleted`);
        const isText = fresh || file.ending === "txt", output = `${folder}/${name}.${isText ? "txt" : "jsonl"}`;
        const method = isText ? "text" : request.method.type, most = files.left(owner) + counted;
        return { output, found: await prepareRows({ path: files.path(file), method, output, most }, signal) };
      };
      const train = await prepare("training_file"),
        val = request.validation_file === null ? undefined : await prepare("validation_file");
      const { output, found } = train;
      if (found.rows === 1 && !val) {
        throw new InvalidFile("the file has one row; expected at least two, because one is held out for evaluation");
      }
      const served = publisher.models(owner).find(({ id }) => id === request.model),
        path = publisher.source(request.model, owner);
      if (!fresh && (!served || path === undefined)) {
        throw invalid("model", `The model ${request.model} is no longer served`);
      }
      const { grader } = request.method.reinforcement as { grader?: { model?: string } } ?? {};
      const plan = planJob({
        ...{ request, folder, train: output, found },
        ...val && { val: val.output },
        ...served && path !== undefined && { model: { served, path } },
        scorer: grader?.model === undefined ? undefined : publisher.source(grader.model, owner),
        threads: threads ?? Math.max(1, Math.floor(navigator.hardwareConcurrency / 2)),
      });
      const copies = found.bytes + (val?.found.bytes ?? 0);
      files.checkLeft(owner, "training_file", copies - counted); // other jobs may have made copies meanwhile
      store.together(() => {
        if (store.job(id)!.status !== "validating_files") return; // it was cancelled
        this.context.say(id, { status: "queued", ...plan, copies }, "Files validated, moving job to queued state");
      });
    } catch (error) {
      if (!signal.aborted) return await this.#crash(id, active, error);
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
    this.next();
  }
  async #fail(id: string, wire: WireError, error: unknown = new Error(`${wire.name}: ${wire.message}`)): Promise<void> {
    const folder = this.context.folder(id);
    const { state: { request, order } } = this.context.store.job(id)!,
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
    if (!known) this.context.report(error, id);
    const told = known ?? { code: "internal_error", message: INTERNAL, param: null };
    this.context.store.together(() =>
      this.context.say(id, { status: "failed", error: told }, `The job failed: ${told.message}`)
    );
    await clearJob(folder);
  }

  /** Starts the jobs that can run. */
  next(): void {
    if (this.closing) return;
    const running = () => [...this.#active.values()].filter(({ worker }) => worker);
    for (const job of this.context.store.jobsIn("queued")) {
      if (running().length >= (this.context.options.atOnce ?? 1)) return;
      const has = running().some(({ owner }) => owner === job.owner);
      if (has || this.#active.has(job.id) || this.#waiting.has(job.id)) continue;
      this.#start(job);
    }
  }
  #start({ id, owner, state }: StoredJob): void {
    const active = this.#begin(id, owner),
      worker = active.worker = new Worker(this.context.options.worker, { type: "module" });
    const progress = new Progressed(this.context.store, id);
    let turns = Promise.resolve();
    worker.onmessage = ({ data }: MessageEvent<FromJob>) => {
      turns = turns.then(() => this.#hear(id, active, data, progress)).catch((error) => this.#crash(id, active, error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      void this.#crash(id, active, new Error(event.message));
    };
    active.stop.signal.addEventListener("abort", () => this.post(active, { kind: "stop" }));
    try {
      const line = state.total === undefined ? "Fine-tuning job started" : "Fine-tuning job resumed";
      this.context.store.together(() =>
        this.context.say(id, { status: "running", starts: (state.starts ?? 0) + 1 }, line)
      );
      this.post(active, { kind: "start", order: state.order! });
    } catch (error) {
      void this.#crash(id, active, error);
    }
  }
  post({ worker }: Active, message: ToJob): void {
    worker?.postMessage(message);
  }
  async #crash(id: string, active: Active, error: unknown): Promise<void> {
    if (this.#active.get(id) !== active) return;
    try {
      const wire = error instanceof ApiError ? { name: "ApiError", message: error.message } : toWire(error);
      if (isFull(error)) this.#waitForRoom(id);
      else if (/running|validating/.test(this.context.store.job(id)!.status)) await this.#fail(id, wire, error);
    } catch (error) { // perhaps the disk is too full to store the job's failure
      if (!isFull(error)) this.context.report(error, id);
      this.#waitForRoom(id);
    }
    this.#end(id, active);
  }
  /** Waits until the disk has room for two more checkpoints. The job then continues from its last checkpoint. */
  #waitForRoom(id: string): void {
    if (!this.#waiting.has(id)) this.context.report(new DiskFull(), id);
    this.#waiting.set(
      id,
      setTimeout(() => {
        const { store, options: { folder } } = this.context, { status, state: { bytes = 0 } } = store.job(id)!;
        const left = availableBytes(folder) ?? Infinity;
        if (this.closing || isOver(status) || status === "paused") return void this.#waiting.delete(id);
        try {
          if (left < 2 * bytes + SPARE) throw new DiskFull();
          const level = "warn", message = "The server's disk was full; the job resumes from its last checkpoint";
          const change = status === "running" ? { status: "queued" as const } : {};
          store.together(() => store.change(id, change, [{ level, message, type: "message", data: null }]));
          if (status === "validating_files") void this.validate(id);
        } catch (error) {
          if (isFull(error)) return this.#waitForRoom(id);
          this.context.report(error, id);
        }
        this.#waiting.delete(id);
        this.next();
      }, 1000 * (this.context.options.roomSeconds ?? 15)),
    );
  }

  async #hear(id: string, active: Active, message: FromJob, progress: Progressed): Promise<void> {
    if (this.#active.get(id) !== active) return;
    const { store } = this.context, { status, owner, state } = store.job(id)!;
    if (message.kind === "stopped") {
      if (status === "running") store.change(id, { status: "queued", starts: 0 }); // the server is shutting down
      return this.#end(id, active);
    }
    if (status !== "running") { // it was paused or cancelled meanwhile
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
      const tuned = modelName(id, state.request), folder = this.context.folder(id);
      const last = store.checkpoints(id, { limit: 1000 })[0].find(({ step }) => step === message.iter)!;
      await this.models.list({ ...last, model: tuned }); // before a client can see that it is finished
      await this.context.files.adopt(owner, message.files, (results) => {
        const told = [`New fine-tuned model created: ${tuned}`, "The job has successfully completed"];
        store.renameModel(last.model, tuned);
        this.context.say(id, { status: "succeeded", tuned, results }, ...told);
      });
      if (last.model !== tuned) this.models.unlist(last.model);
      this.#end(id, active);
      await clearJob(folder);
    }
  }

  async #checkpoint(
    id: string,
    { iter, asked }: Extract<FromJob, { kind: "checkpoint" }>,
    progress: Progressed,
  ): Promise<void> {
    const { store } = this.context,
      { state } = store.job(id)!,
      model = `${modelName(id, state.request)}:ckpt-step-${iter}`;
    const checkpoint: StoredCheckpoint = {
      ...{ id: newId("ftckpt_"), job: id, step: iter, created: now(), model, asked, metrics: state.metrics ?? {} },
    };
    // After a restart, the worker reports a checkpoint again.
    if (store.checkpoints(id, { limit: 1000 })[0].some(({ step }) => step === iter)) return;
    await this.models.list(checkpoint);
    progress.checkpoint(checkpoint);
    await this.models.prune(id);
  }

  /** Waits until the work on these jobs has ended, and terminates workers that take too long. */
  async ending(ids: readonly string[]): Promise<void> {
    await Promise.all(ids.map(async (id) => {
      const active = this.#active.get(id), late = Promise.withResolvers<void>();
      if (!active) return;
      const timer = setTimeout(late.resolve, TO_END);
      await Promise.race([late.promise, active.ended.promise]);
      clearTimeout(timer);
      this.#end(id, active);
    }));
  }

  /** Starts no more jobs, and lets running jobs save. They resume when the folder is opened again. */
  async drain(): Promise<void> {
    this.closing = true;
    for (const { stop } of this.#active.values()) stop.abort();
    await this.ending([...this.#active.keys()]);
    for (const timer of this.#waiting.values()) clearTimeout(timer);
  }
}

/** An error in a client's file. */
class InvalidFile extends Error {
  override name = "DataError";
}
