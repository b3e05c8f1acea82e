/** A run in *Runs*: a fine-tuning job, a run whose model is served, or a metrics.jsonl from disk. */
import { ask, json } from "./api.ts";
import type { Point } from "./plot.ts";

export interface Job {
  readonly id: string;
  readonly created_at: number;
  readonly model: string;
  readonly fine_tuned_model: string | null;
  readonly status: "validating_files" | "queued" | "running" | "paused" | "succeeded" | "failed" | "cancelled";
  readonly error: { readonly message: string } | null;
  readonly method?: { readonly type: string };
  readonly result_files: readonly string[];
}
export interface JobEvent {
  readonly id: string;
  readonly created_at: number;
  readonly level: string;
  readonly message: string;
  readonly type?: string;
  readonly data?: Readonly<Record<string, unknown>> | null;
}
export interface Checkpoint {
  readonly id: string;
  readonly step_number: number;
  readonly fine_tuned_model_checkpoint: string;
  readonly metrics: Readonly<Record<string, number>>;
}
export interface Page<T> {
  readonly data: readonly T[];
  readonly has_more: boolean;
}

const JOBS = "/v1/fine_tuning/jobs";
/** Events per request. */
const MOST = 500;

export class Run {
  readonly id: string;
  readonly #name: string;
  #reading: Promise<void> | undefined;
  job: Job | undefined;
  /** Bytes of a served run's metrics that have been read; undefined for jobs and files. */
  read: number | undefined;
  /** Curves by the name of the metric, in ascending order of steps. */
  readonly curves = new Map<string, Point[]>();
  /** Events, oldest first. */
  events: JobEvent[] = [];
  checkpoints: readonly Checkpoint[] = [];
  step = 0;
  steps: number | undefined;
  /** Recent steps per second. */
  pace: number | undefined;

  constructor(id: string, name: string, job?: Job) {
    this.id = id;
    this.#name = name;
    this.job = job;
  }

  get name(): string {
    return this.job?.fine_tuned_model ?? this.#name;
  }

  /** Requests what is new: a job's events and checkpoints, or lines of a served run's metrics.jsonl. */
  refresh(): Promise<void> {
    return this.#reading ??= this.#refresh().finally(() => this.#reading = undefined);
  }
  async #refresh(): Promise<void> {
    if (this.job) return await this.#readJob();
    if (this.read === undefined) return;
    const path = `/v1/runs/${encodeURIComponent(this.#name)}/metrics?after=${this.read}`;
    const text = await (await ask(path)).text();
    this.read += new TextEncoder().encode(text).length;
    this.take(text, this.#name);
  }
  async #readJob(): Promise<void> {
    const known = this.events.at(-1)?.id, fresh: JobEvent[] = [];
    for (let after = "";;) {
      const page = await json<Page<JobEvent>>(`${JOBS}/${this.id}/events?limit=${MOST}${after && `&after=${after}`}`);
      const at = page.data.findIndex(({ id }) => id === known);
      fresh.push(...at < 0 ? page.data : page.data.slice(0, at));
      if (at >= 0 || !page.has_more) break;
      after = page.data.at(-1)!.id;
    }
    fresh.reverse();
    this.events.push(...fresh);
    for (const { data } of fresh) if (data) this.#measure(data);
    this.#hurry();
    this.checkpoints = (await json<Page<Checkpoint>>(`${JOBS}/${this.id}/checkpoints?limit=100`)).data;
  }

  #measure(data: Readonly<Record<string, unknown>>): void {
    const { step, total_steps, ...rest } = data, isEvaluation = "valid_loss" in rest;
    if (typeof step !== "number") return;
    if (typeof total_steps === "number") this.steps = total_steps;
    this.step = Math.max(this.step, step);
    for (const [name, value] of Object.entries(rest)) {
      if (typeof value !== "number" || name === "full_valid_loss") continue;
      if (isEvaluation && name === "train_loss") continue; // an evaluation's mean, not a step's loss
      this.#add(name, step, value);
    }
  }
  #add(name: string, step: number, value: number): void {
    const points = this.curves.get(name) ?? [];
    if (points.length > 0 && points.at(-1)![0] > step) return;
    points.push([step, value]);
    this.curves.set(name, points);
  }
  #hurry(): void {
    const steps = this.events.filter(({ data }) => typeof data?.step === "number").slice(-30),
      [first, last] = [steps[0], steps.at(-1)];
    const passed = last && first ? last.created_at - first.created_at : 0;
    this.pace = passed > 0 ? (Number(last!.data!.step) - Number(first.data!.step)) / passed : undefined;
  }

  /**
   * Parses a run folder's metrics.jsonl.
   *
   * @throws {SyntaxError} naming the invalid line
   */
  static parse(name: string, text: string): Run {
    const run = new Run(`file ${name}`, name);
    run.take(text, name);
    return run;
  }
  /** Adds lines of metrics.jsonl. @throws {SyntaxError} naming the invalid line */
  take(text: string, name: string): void {
    text.split("\n").forEach((line, i) => {
      if (line.trim() === "") return;
      let found: unknown;
      try {
        found = JSON.parse(line);
      } catch {
        throw new SyntaxError(`${name}, line ${i + 1}: not JSON`);
      }
      const { iter, loss, lr, val_loss, ...more } = found as Record<string, unknown>;
      if (typeof iter !== "number") {
        throw new SyntaxError(`${name}, line ${i + 1}: "iter" is missing; expected a line of metrics.jsonl`);
      }
      const isEvaluation = val_loss !== undefined;
      const own = isEvaluation ? { valid_loss: val_loss } : { train_loss: loss, learning_rate: lr };
      this.#measure({ ...more, step: isEvaluation ? iter : iter + 1, ...own });
    });
  }
}

/** Runs whose models are served. */
export const listRuns = async (): Promise<readonly { readonly id: string }[]> =>
  (await json<Page<{ id: string }>>("/v1/runs")).data;
export const listJobs = async (): Promise<readonly Job[]> => (await json<Page<Job>>(`${JOBS}?limit=100`)).data;
export const act = (job: string, verb: "pause" | "resume" | "cancel" | "checkpoints"): Promise<Job> =>
  json(`${JOBS}/${job}/${verb}`, { method: "POST" });
export const beginJob = (body: Readonly<Record<string, unknown>>): Promise<Job> => json(JOBS, { body });

/** Uploads a file. @returns the file's id */
export async function upload(file: File): Promise<string> {
  const form = new FormData();
  form.set("purpose", "fine-tune");
  form.set("file", file);
  return (await json<{ id: string }>("/v1/files", { body: form })).id;
}
