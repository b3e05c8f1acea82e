/** What the page and the engine say to each other. The engine runs in a worker, so everything here is plain data. */
import type { GPTConfig, TrainerOptions, TrainEvent } from "@nanogpt/ts";

export type DeviceChoice = "auto" | "webgpu" | "webgpu:software" | "cpu";

/** A file that was chosen or dropped, with its path from the chosen folder on. */
export interface DiskFile {
  readonly path: string;
  readonly file: Blob;
}

/** Loads a run's folder, or one of Hugging Face's: the first message to an engine that is to tune a model. */
export interface LoadRequest {
  readonly kind: "load";
  readonly device: DeviceChoice;
  readonly files: readonly DiskFile[];
}

/** A new run: the first message to an engine, or the one after it has loaded a model. */
export interface StartRequest {
  readonly kind: "start";
  readonly device: DeviceChoice;
  /** What to learn. Of a new model its characters are the vocabulary; its last tenth is held out. */
  readonly text: string;
  /** Rows of texts, or of prompts and completions, to tune on instead; the ending of the path says how they are written. */
  readonly rows?: DiskFile;
  /** Draws the initial weights and the batches, as nanoGPT does. */
  readonly seed: number;
  /** Of a new model. */
  readonly model?: Omit<GPTConfig, "vocabSize">;
  /** Of a loaded one: the most tokens of a row, and the rank of the adapter that is trained, 0 where all weights are. */
  readonly tuned?: { readonly context: number; readonly rank: number };
  readonly training: Partial<TrainerOptions>;
  /** Tokens that the model writes at each evaluation; 0 for none. */
  readonly sampleLength: number;
  /** Of the text, where it is known: nats a token. */
  readonly entropy?: number;
}

/** What the page's folder holds of a run besides the run's own folder, to go on with after a reload. */
export interface SavedRequest extends Omit<StartRequest, "text" | "rows"> {
  /** The path of what is learned. */
  readonly data: string;
  /** The path of the loaded model. */
  readonly base?: string;
}

/** Goes on from a prompt; while training, between two updates. */
export interface WriteRequest {
  readonly kind: "write";
  readonly prompt: string;
  /** In tokens. */
  readonly length: number;
  readonly temperature: number;
  /** Without: all tokens may be drawn. */
  readonly topK?: number;
  readonly seed: number;
}

/** What can be taken away: a folder of Hugging Face's with an adapter merged into the weights, PEFT's adapter, a run's folder. */
export type ExportFormat = "hugging_face" | "adapter" | "run";

/** What makes a model ready; `restore` the run that the page's folder holds, as it stood when it was saved: a first message, too. */
export type PrepareRequest = LoadRequest | StartRequest | { readonly kind: "restore" };

export type ToEngine =
  | PrepareRequest
  | WriteRequest
  | { readonly kind: "export"; readonly format: ExportFormat }
  /** Ends the training after the update that is under way; `resume` goes on from there. */
  | { readonly kind: "stop" | "resume" }
  /** Ends the writing. */
  | { readonly kind: "hush" }
  /** Frees the device and ends the worker. */
  | { readonly kind: "close" };

/** Which way the engine computes; `noGPU` says why it is not the GPU that was wanted most. */
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
    /** Parameters of the adapter, where one is trained. */
    readonly trained?: number;
    readonly vocabSize: number;
    /** Tokens to train on, and held out. */
    readonly tokens: readonly [number, number];
    /** Why the run is lost when the page is closed; none where it is saved. */
    readonly unsaved?: string;
  }
  /** A piece of text: of the sample that iteration `iter` made, or, without one, of what the prompt asked for. */
  | { readonly kind: "text"; readonly iter?: number; readonly text: string }
  | { readonly kind: "written"; readonly iter?: number }
  /** After `stop`, after `restore`, or at the end: `iter` updates were made. */
  | { readonly kind: "stopped" | "finished"; readonly iter: number }
  /** A zip archive. */
  | { readonly kind: "exported"; readonly name: string; readonly archive: Blob }
  | { readonly kind: "error"; readonly during: "start" | "training" | "writing" | "export"; readonly message: string };
