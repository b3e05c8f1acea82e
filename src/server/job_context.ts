/** What all parts of jobs work with: options, the database, clients' files, and where each job has its folder. */
import type { ServedModel } from "./engine_api.ts";
import { Files } from "./files.ts";
import type { Store } from "./store.ts";

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

export class JobContext {
  readonly files: Files;

  constructor(readonly options: JobsOptions, readonly store: Store) {
    this.files = new Files(`${options.folder}/files`, store);
  }
  /** The folder of a job. */
  folder(id: string): string {
    return `${this.options.folder}/jobs/${id}`;
  }
  /** Takes what nobody threw on purpose. */
  report(error: unknown, id: string): void {
    const { onError = (error, job) => console.error(`job ${job}:`, error) } = this.options;
    onError(error, id);
  }
  /** Changes a job, and tells of it in lines. @throws {DiskFull} */
  say(id: string, change: Parameters<Store["change"]>[1], ...lines: string[]): void {
    const level = change.status === "failed" ? "error" as const : "info" as const;
    this.store.change(id, change, lines.map((message) => ({ level, type: "message", message, data: null })));
  }
}
