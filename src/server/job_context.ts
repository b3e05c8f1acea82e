/** What all modules for jobs share: options, the database, clients' files, and the folder of each job. */
import type { ServedModel } from "./engine_api.ts";
import { Files } from "./files.ts";
import type { Store } from "./store.ts";

/** Serves the models that jobs make. */
export interface Publisher {
  models(key?: string): readonly ServedModel[];
  /** A model's path for `loadPretrained`; undefined if the key has no model with this name. */
  source(id: string, key?: string): string | undefined;
  /** Starts to serve a model. It is loaded at its first request. */
  list(model: TunedModel): Promise<void>;
  /** Stops serving a model. @throws {ConfigError} if the model is in use */
  unlist(id: string): void;
}

/** A model that a job has made. */
export interface TunedModel {
  readonly id: string;
  readonly owner: string;
  readonly created: number;
  /** Path of a run folder. */ readonly path: string;
  /** For an adapter: the id of its base model. */ readonly base?: string;
}

export interface JobsOptions {
  /** Folder for the database, files and jobs. The caller holds its lock. */ readonly folder: string;
  readonly publisher: Publisher;
  /** The module of a job's worker. */ readonly worker: URL;
  /** Names of the configs for new models: a job whose `model` is `new:NAME` trains one. */ readonly configs:
    readonly string[];
  /** Maximum number of jobs that run at once; a key can run one at a time. Default 1. */ readonly atOnce?: number;
  /** Threads of a job. Default: half the number of processors. */ readonly threads?: number;
  /** Seconds between two checks whether a full disk has room again. Default 15. */ readonly roomSeconds?: number;
  /** Called with unexpected errors. Default: prints them to standard error. */ readonly onError?: (
    error: unknown,
    job: string,
  ) => void;
}

export class JobContext {
  readonly files: Files;

  constructor(readonly options: JobsOptions, readonly store: Store) {
    this.files = new Files(`${options.folder}/files`, store);
  }
  /** Path of a job's folder. */
  folder(id: string): string {
    return `${this.options.folder}/jobs/${id}`;
  }
  /** Reports an unexpected error. */
  report(error: unknown, id: string): void {
    const { onError = (error, job) => console.error(`job ${job}:`, error) } = this.options;
    onError(error, id);
  }
  /** Changes a job and adds an event for each line. @throws {DiskFull} if the disk is full */
  say(id: string, change: Parameters<Store["change"]>[1], ...lines: string[]): void {
    const level = change.status === "failed" ? "error" as const : "info" as const;
    this.store.change(id, change, lines.map((message) => ({ level, type: "message", message, data: null })));
  }
}
