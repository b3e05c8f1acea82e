/** The messages between the engine's thread and its worker: plain data. */
import type { DeviceName } from "../device/create.ts";
import { CheckpointError, ConfigError, DataError, DeviceError } from "../errors.ts";
import type { CacheType } from "../nn/cache.ts";
import type { GenerateRequest, Piece, PieceToken, PromptScore } from "./engine_api.ts";
import type { EngineMetrics } from "./metrics.ts";

/**
 * Maximum number of texts that a model generates at once by default. More slots would raise the throughput only a
 * little.
 */
export const MOST_SLOTS = 64;

/** Who owns a served model, and when it is loaded. */
export interface Serving {
  /** Id of the key that owns the model; default: every key can use it. */ readonly owner?: string;
  /** When the model was created, in seconds since 1970; default: now. */ readonly created?: number;
  /** The model's `owned_by` in `GET /v1/models`. Default `local`. */ readonly ownedBy?: string;
  /** Whether the model is loaded at its first request, and can be unloaded again. Default false. */
  readonly lazy?: boolean;
}

/** A model to load: what `loadPretrained` takes, and how many texts it generates at once. */
export interface ModelSpec extends Serving {
  readonly id: string;
  readonly path: string;
  /** Folder of an adapter that gets its own copy of the model at `path`. */ readonly adapter?: string;
  readonly weights: "f32" | "bf16" | "q8_0";
  readonly checkpoint?: "best" | "last";
  readonly device: DeviceName;
  /** Threads of the CPU device; undefined: one for each processor. */ readonly threads?: number;
  /** Texts at once; 0: as many as fit into half of the device's free memory, at most 64. */ readonly slots: number;
  /** Data type of the cached keys and values. */ readonly cache: CacheType;
}

/** An adapter for a model that is served. The texts of a model and of all its adapters are generated in one batch. */
export interface AdapterSpec extends Serving {
  readonly id: string;
  /** Id of the served model that the adapter is for. */ readonly base: string;
  /** A folder in PEFT's format, or the folder of a run that trains an adapter. */ readonly path: string;
  /** The run whose checkpoint is at `path`. */ readonly run?: string;
}

/** What the worker reports about a model that it has loaded. */
export interface LoadedInfo {
  readonly endIds: readonly number[];
  readonly slots: number;
  /** For an adapter that uses another model's slots: that model's id; otherwise its own id. */ readonly base: string;
  /** Bytes of its weights, and of the keys and values of all slots. */ readonly bytes: number;
  /** Description of the device, such as `cpu (wide), threads: 2`. */ readonly device: string;
  /** Notes for the user. */ readonly notes: readonly string[];
}

/** A message to the worker. `of` is the request's number, which its answers repeat. */
export type ToWorker =
  | { readonly kind: "load"; readonly of: number; readonly spec: ModelSpec | AdapterSpec }
  | { readonly kind: "unload"; readonly of: number; readonly id: string }
  | { readonly kind: "generate"; readonly of: number; readonly request: GenerateRequest; readonly arrived: number }
  | {
    readonly kind: "embed";
    readonly of: number;
    readonly model: string;
    readonly inputs: readonly (readonly number[])[];
  }
  | { readonly kind: "abort"; readonly of: number };

/** A {@linkcode Piece} to which tokens are added. */
export type GrowingPiece = { -readonly [Key in keyof Piece]: Piece[Key] } & { readonly tokens: PieceToken[] };

/** What is new about a request: pieces of its texts, its result, or its error. */
export interface Update {
  readonly of: number;
  readonly pieces: GrowingPiece[];
  scores?: readonly PromptScore[];
  vectors?: readonly Float32Array[];
  loaded?: LoadedInfo;
  error?: WireError;
}

/** A message from the worker: all updates since its last message. */
export interface FromWorker {
  readonly updates: readonly Update[];
  readonly metrics: EngineMetrics;
}

/** Errors of these classes have the same class after they were sent; errors of other classes become an `Error`. */
const CLASSES = { CheckpointError, ConfigError, DataError, DeviceError };
export interface WireError {
  readonly name: string;
  readonly message: string;
}

export const toWire = (error: unknown): WireError => {
  const { name, message } = error instanceof Error ? error : { name: "Error", message: String(error) };
  return { name, message };
};
export function fromWire({ name, message }: WireError): Error {
  const Class = Object.hasOwn(CLASSES, name) ? CLASSES[name as keyof typeof CLASSES] : Error;
  return new Class(message);
}

/**
 * Memory that both threads share. It holds the number of messages sent to the worker, so that the worker knows between
 * two steps whether messages are waiting, and the time at which its last step ended.
 */
export class Shared {
  static readonly BYTES = 24;
  readonly #counts: Int32Array;
  readonly #times: Float64Array;

  constructor(readonly buffer = new SharedArrayBuffer(Shared.BYTES)) {
    this.#counts = new Int32Array(buffer, 0, 2);
    this.#times = new Float64Array(buffer, 8, 2);
  }
  /** Number of messages sent to the worker. */
  get sent(): number {
    return Atomics.load(this.#counts, 0);
  }
  posted(): void {
    Atomics.add(this.#counts, 0, 1);
  }
  /** Whether the worker is generating texts. */
  get busy(): boolean {
    return Atomics.load(this.#counts, 1) === 1;
  }
  set busy(busy: boolean) {
    Atomics.store(this.#counts, 1, busy ? 1 : 0);
  }
  /**
   * Milliseconds from 1970 to the end of the last step; during the first step after a pause, to the beginning of that
   * step.
   */
  get stepped(): number {
    return this.#times[0];
  }
  step(): void {
    this.#times[0] = Date.now();
  }
}
