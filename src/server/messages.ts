/** What goes between the engine's thread and its worker: plain data. */
import type { DeviceName } from "../device/create.ts";
import { CheckpointError, ConfigError, DataError, DeviceError } from "../errors.ts";
import type { CacheType } from "../nn/cache.ts";
import type { GenerateRequest, Piece, PieceToken, PromptScore } from "./engine_api.ts";
import type { EngineMetrics } from "./metrics.ts";

/** Texts that a model writes at once, where nobody says: more make a step faster by little. */
export const MOST_SLOTS = 64;

/** Of what is served: whose it is, and when it is loaded. */
export interface Serving {
  /** Id of the key that it belongs to; default: it is everybody's. */ readonly owner?: string;
  /** In seconds since 1970; default: now. */ readonly created?: number;
  /** Default `local`. */ readonly ownedBy?: string;
  /** Whether it is loaded at its first request, and may be unloaded again. Default false. */ readonly lazy?: boolean;
}

/** A model to be loaded: what `loadPretrained` takes, and how many texts it writes at once. */
export interface ModelSpec extends Serving {
  readonly id: string;
  readonly path: string;
  /** A folder with an adapter, which is put on a model of `path` of its own. */ readonly adapter?: string;
  readonly weights: "f32" | "bf16" | "q8_0";
  readonly checkpoint?: "best" | "last";
  readonly device: DeviceName;
  /** Of the CPU; undefined: one for each processor. */ readonly threads?: number;
  /** Texts at once; 0: as many as fit into half of what the device has left, 64 at the most. */ readonly slots: number;
  /** How keys and values are stored. */ readonly cache: CacheType;
}

/** An adapter to be served on a model that is loaded, whose texts are written together with those of the model and its other adapters. */
export interface AdapterSpec extends Serving {
  readonly id: string;
  /** Of the served model that it is for. */ readonly base: string;
  /** A folder of PEFT's, or of a run that trains an adapter. */ readonly path: string;
  /** The run whose checkpoint `path` is. */ readonly run?: string;
}

/** What the worker says of a model that it has loaded. */
export interface LoadedInfo {
  readonly endIds: readonly number[];
  readonly slots: number;
  /** The model with which it shares slots; its own id where it has slots of its own. */ readonly base: string;
  /** Of its weights, and of the keys and values of all slots. */ readonly bytes: number;
  /** Such as `cpu (wide), threads: 2`. */ readonly device: string;
  /** Worth knowing. */ readonly notes: readonly string[];
}

/** `of` is the number of a request, which answers have, too. */
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

/** A {@linkcode Piece} that grows. */
export type GrowingPiece = { -readonly [Key in keyof Piece]: Piece[Key] } & { readonly tokens: PieceToken[] };

/** What has become of a request. */
export interface Update {
  readonly of: number;
  readonly pieces: GrowingPiece[];
  scores?: readonly PromptScore[];
  vectors?: readonly Float32Array[];
  loaded?: LoadedInfo;
  error?: WireError;
}

/** All that was ready. */
export interface FromWorker {
  readonly updates: readonly Update[];
  readonly metrics: EngineMetrics;
}

/** An error of these classes is the same on the other side; others become an Error. */
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
 * Memory that both sides see: the number of messages that were sent to the worker, so that it lets them in between two steps, and
 * when its last step ended.
 */
export class Shared {
  static readonly BYTES = 24;
  readonly #counts: Int32Array;
  readonly #times: Float64Array;

  constructor(readonly buffer = new SharedArrayBuffer(Shared.BYTES)) {
    this.#counts = new Int32Array(buffer, 0, 2);
    this.#times = new Float64Array(buffer, 8, 2);
  }
  /** How many messages were sent. */
  get sent(): number {
    return Atomics.load(this.#counts, 0);
  }
  posted(): void {
    Atomics.add(this.#counts, 0, 1);
  }
  /** Whether the worker has rows to write. */
  get busy(): boolean {
    return Atomics.load(this.#counts, 1) === 1;
  }
  set busy(busy: boolean) {
    Atomics.store(this.#counts, 1, busy ? 1 : 0);
  }
  /** When the last step ended, or the first began after nothing was to be done; in milliseconds since 1970. */
  get stepped(): number {
    return this.#times[0];
  }
  step(): void {
    this.#times[0] = Date.now();
  }
}
