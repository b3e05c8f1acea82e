/** The messages between the server's thread and a job's worker: plain data. */
import type { Metrics } from "../checkpoint/metrics.ts";
import type { Grader } from "./graders.ts";
import type { WireError } from "./messages.ts";

/** The work of a worker: a command with its flags. */
export interface JobOrder {
  readonly command: "train" | "finetune";
  /** Values of flags by name; all other flags have the command's defaults. */
  readonly values: Readonly<Record<string, unknown>>;
  /** For `train`: the name of a shipped config. */ readonly config?: string;
  /** For `train`: passes over the text, instead of the config's number of updates. */ readonly epochs?: number;
  /** For `train`: factor for the config's learning rates. */ readonly rate?: number;
  /** The grader that scores completions. */ readonly grader?: Grader;
  /** The job's folder; the run is in its folder `run`. */ readonly folder: string;
  /** The base model's id. */ readonly base: string;
}

export type ToJob =
  | { readonly kind: "start"; readonly order: JobOrder }
  /** Saves after the current update. */
  | { readonly kind: "save" }
  /** Saves and exits. */
  | { readonly kind: "stop" };

/** A file of a job's result. */
export interface ResultFile {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

export type FromJob =
  /** Sent before the first update: the total number of updates, and bytes of a checkpoint. */
  | { readonly kind: "begun"; readonly total: number; readonly bytes: number }
  /** Lines of metrics.jsonl. After a restart all earlier lines are sent again. */
  | { readonly kind: "metrics"; readonly lines: readonly Metrics[] }
  /** A checkpoint has been saved in `checkpoints/step-ITER`. Sent again for the last checkpoint after a restart. */
  | { readonly kind: "checkpoint"; readonly iter: number; readonly asked: boolean }
  | { readonly kind: "stopped"; readonly iter: number }
  | { readonly kind: "done"; readonly iter: number; readonly files: readonly ResultFile[] }
  | { readonly kind: "failed"; readonly error: WireError };

/** The folder of a checkpoint that is served as a model: a run folder without the optimizer's state. */
export const checkpointFolder = (folder: string, iter: number): string => `${folder}/checkpoints/step-${iter}`;
