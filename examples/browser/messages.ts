/** What the page and the engine say to each other. The engine runs in a worker, so everything here is plain data. */
import type { GPTConfig, TrainerOptions, TrainEvent } from "@nanogpt/ts";

export type DeviceChoice = "auto" | "webgpu" | "webgpu:software" | "cpu";

/** A new run: the first message to an engine. */
export interface StartRequest {
  readonly kind: "start";
  readonly device: DeviceChoice;
  /** What to learn; its characters are the vocabulary, its last tenth is held out. */
  readonly text: string;
  /** Draws the initial weights and the batches, as nanoGPT does. */
  readonly seed: number;
  readonly model: Omit<GPTConfig, "vocabSize">;
  readonly training: Partial<TrainerOptions>;
  /** Characters that the model writes at each evaluation; 0 for none. */
  readonly sampleLength: number;
}

/** Goes on from a prompt; while training, between two updates. */
export interface WriteRequest {
  readonly kind: "write";
  readonly prompt: string;
  readonly length: number;
  readonly temperature: number;
  /** Without: all characters may be drawn. */
  readonly topK?: number;
  readonly seed: number;
}

export type ToEngine =
  | StartRequest
  | WriteRequest
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
    readonly kind: "started";
    readonly path: Path;
    readonly parameters: number;
    readonly vocabSize: number;
    /** Tokens to train on, and held out. */
    readonly tokens: readonly [number, number];
  }
  /** A piece of text: of the sample that iteration `iter` made, or, without one, of what the prompt asked for. */
  | { readonly kind: "text"; readonly iter?: number; readonly text: string }
  | { readonly kind: "written"; readonly iter?: number }
  /** After `stop`, or at the end: `iter` updates were made. */
  | { readonly kind: "stopped" | "finished"; readonly iter: number }
  | { readonly kind: "error"; readonly during: "start" | "training" | "writing"; readonly message: string };
