/** The messages between the page and the engine. The engine runs in a worker, so all messages are plain data. */
import type { GPTConfig, TrainerOptions, TrainEvent } from "@nanogpt/ts";

export type DeviceChoice = "auto" | "webgpu" | "webgpu:software" | "cpu";

/** A chosen or dropped file, with its path relative to the chosen folder's parent. */
export interface DiskFile {
  readonly path: string;
  readonly file: Blob;
}

/** Loads a run's folder or a Hugging Face folder. It is the first message to an engine that fine-tunes a model. */
export interface LoadRequest {
  readonly kind: "load";
  readonly device: DeviceChoice;
  readonly files: readonly DiskFile[];
}

/** Starts a new run. It is the first message to an engine, or the first after `load`. */
export interface StartRequest {
  readonly kind: "start";
  readonly device: DeviceChoice;
  /** The text to train on; its last tenth is held out. Its characters are the vocabulary of a new model. */
  readonly text: string;
  /** A file with rows to fine-tune on instead of the text; the path's ending gives the format. */
  readonly rows?: DiskFile;
  /** Seed of the initial weights and the batches, as in nanoGPT. */
  readonly seed: number;
  /** Configuration of a new model. */
  readonly model?: Omit<GPTConfig, "vocabSize">;
  /** Options for a loaded model: maximum tokens of a row, and the adapter's rank; rank 0 trains all weights. */
  readonly tuned?: { readonly context: number; readonly rank: number };
  readonly training: Partial<TrainerOptions>;
  /** Tokens of the sample at each evaluation; 0: no samples. */
  readonly sampleLength: number;
  /** Entropy of the text in nats per token, if it is known. */
  readonly entropy?: number;
}

/** The request that started a run. The page saves it beside the run folder, to resume the run after a reload. */
export interface SavedRequest extends Omit<StartRequest, "text" | "rows"> {
  /** Path of the training data. */
  readonly data: string;
  /** Path of the loaded model. */
  readonly base?: string;
}

/** Continues a prompt; during training, between two updates. */
export interface WriteRequest {
  readonly kind: "write";
  readonly prompt: string;
  /** Length in tokens. */
  readonly length: number;
  readonly temperature: number;
  /** Only the k most likely tokens can be chosen. Default: all tokens. */
  readonly topK?: number;
  readonly seed: number;
}

/**
 * What can be exported: a Hugging Face folder with the adapter merged into the weights, an adapter in PEFT's format, or
 * a run folder.
 */
export type ExportFormat = "hugging_face" | "adapter" | "run";

/** Prepares a model. It is an engine's first message; `restore` opens the saved run at its last checkpoint. */
export type PrepareRequest = LoadRequest | StartRequest | { readonly kind: "restore" };

export type ToEngine =
  | PrepareRequest
  | WriteRequest
  | { readonly kind: "export"; readonly format: ExportFormat }
  /** `stop` ends training after the current update; `resume` continues it. */
  | { readonly kind: "stop" | "resume" }
  /** Stops generating the text. */
  | { readonly kind: "hush" }
  /** Frees the device and ends the worker. */
  | { readonly kind: "close" };

/** Describes the device that the engine computes on. `noGPU` says why `auto` did not choose a GPU. */
export type Path =
  | { readonly device: "webgpu"; readonly adapter: string }
  | { readonly device: "cpu"; readonly threads: number; readonly isolated: boolean; readonly noGPU?: string };

export type FromEngine =
  | TrainEvent
  | {
    readonly kind: "loaded";
    readonly path: Path;
    readonly name: string;
    readonly parameters: number;
    readonly vocabSize: number;
    readonly blockSize: number;
  }
  | {
    readonly kind: "started";
    readonly path: Path;
    readonly parameters: number;
    /** Number of the adapter's parameters, if one is trained. */
    readonly trained?: number;
    readonly vocabSize: number;
    /** Number of training tokens, and of held-out tokens. */
    readonly tokens: readonly [number, number];
    /** Why the run is not saved; undefined if it is. */
    readonly unsaved?: string;
  }
  /** A piece of the sample at iteration `iter`; if `iter` is missing, a piece of the text that continues the prompt. */
  | { readonly kind: "text"; readonly iter?: number; readonly text: string }
  | { readonly kind: "written"; readonly iter?: number }
  /** Sent after `stop`, after `restore`, and at the end. `iter` is the number of updates. */
  | { readonly kind: "stopped" | "finished"; readonly iter: number }
  /** A zip archive. */
  | { readonly kind: "exported"; readonly name: string; readonly archive: Blob }
  | { readonly kind: "error"; readonly during: "start" | "training" | "writing" | "export"; readonly message: string };
