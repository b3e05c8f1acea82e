/** What goes between the jobs' thread and the worker of one job: plain data. */
import type { Metrics } from "../checkpoint/metrics.ts";
import type { Grader } from "./graders.ts";
import type { WireError } from "./messages.ts";

/** What a worker is to do: a command with its flags. */
export interface JobOrder {
  readonly command: "train" | "finetune";
  /** Flags by their names, those that are not the command's own. */
  readonly values: Readonly<Record<string, unknown>>;
  /** Of train: a config that is shipped, by its name. */ readonly config?: string;
  /** Of train: passes over the text, in place of the config's updates. */ readonly epochs?: number;
  /** Of train: what a config's learning rates are multiplied by. */ readonly rate?: number;
  /** What scores completions. */ readonly grader?: Grader;
  /** The job's folder: its run is in `run`. */ readonly folder: string;
  /** What clients call the model that is tuned. */ readonly base: string;
}

export type ToJob =
  | { readonly kind: "start"; readonly order: JobOrder }
  /** Saves after the update that runs. */
  | { readonly kind: "save" }
  /** Saves and ends. */
  | { readonly kind: "stop" };

/** A file of a job's result. */
export interface ResultFile {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

export type FromJob =
  /** Before the first update: how many there are in all, and bytes of a checkpoint. */
  | { readonly kind: "begun"; readonly total: number; readonly bytes: number }
  /** Lines of metrics.jsonl: after a restart, all that were written before, too. */
  | { readonly kind: "metrics"; readonly lines: readonly Metrics[] }
  /** A checkpoint has become a model of its own, in `checkpoints/step-ITER`; after a restart the last one comes again. */
  | { readonly kind: "checkpoint"; readonly iter: number; readonly asked: boolean }
  | { readonly kind: "stopped"; readonly iter: number }
  | { readonly kind: "done"; readonly iter: number; readonly files: readonly ResultFile[] }
  | { readonly kind: "failed"; readonly error: WireError };

/** The folder of a checkpoint that has become a model: a run folder without an optimizer's state. */
export const checkpointFolder = (folder: string, iter: number): string => `${folder}/checkpoints/step-${iter}`;
