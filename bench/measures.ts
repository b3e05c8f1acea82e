/**
 * The measurements of benchmarks that compare libraries, and the requests for them. A library's process receives a
 * request as a line of JSON (peer.ts).
 */
import type { GPTConfig, GPTOptions } from "../mod.ts";

export const FORMS = ["NN", "NT", "TN"] as const;
/**
 * A product of matrices, M×K times K×N. In the form's name, N marks an operand that is not transposed in memory, T a
 * transposed operand.
 */
export type Product = readonly [form: typeof FORMS[number], M: number, K: number, N: number];

export type Request =
  | { readonly kind: "product"; readonly form: Product[0]; readonly M: number; readonly K: number; readonly N: number }
  | { readonly kind: "training"; readonly batchSize: number; readonly logInterval: number } & GPTConfig
  | { readonly kind: "adapter"; readonly rank: number; readonly batchSize: number; readonly logInterval: number }
    & GPTConfig
  | { readonly kind: "decoding" } & GPTConfig
  | { readonly kind: "memory"; readonly bytes: number; readonly threads: number }
  | RowsRequest;

/** A request for generating several texts at once, each from a prompt of its own. */
export type RowsRequest = {
  readonly kind: "rows";
  /** Number of texts. */
  readonly rows: number;
  /** Tokens of a prompt, and tokens to generate after it. */
  readonly prompt: number;
  readonly tokens: number;
  readonly weights: NonNullable<GPTOptions["weights"]>;
  /** Path of a GGUF file with a model of this config, for libraries that read the model from a file. */
  readonly gguf?: string;
} & Pick<GPTConfig, "nLayer" | "nHead" | "nEmbd" | "vocabSize" | "blockSize" | "activation">;

export interface Measure {
  readonly name: string;
  readonly unit: "GF/s" | "GB/s" | "tokens/s" | "steps/s" | "ms";
  /** Converts a rate in products, steps or tokens a second to the unit. */
  value(rate: number): number;
  readonly request: Request;
  /**
   * Whether each measurement runs in a process that is started for it, while no other library's process runs. A process
   * that holds gigabytes would slow the page faults of others.
   */
  readonly alone?: boolean;
}

export interface Setting {
  readonly name: string;
  readonly model: GPTConfig;
  readonly batchSize: number;
  /** The loss is read every `logInterval` steps. */
  readonly logInterval: number;
}

/** A product of f32 matrices. */
export function product([form, M, K, N]: Product): Measure {
  const value = (rate: number) => 2e-9 * M * K * N * rate;
  return { name: `matmul ${form} ${M}×${K}×${N}`, unit: "GF/s", value, request: { kind: "product", form, M, K, N } };
}

/** Training: forward, backward, clipping, AdamW, and the next batch. */
export function training(setting: Setting, unit: "tokens/s" | "steps/s" | "ms"): Measure {
  const { name, model, batchSize, logInterval } = setting;
  const value = {
    "tokens/s": (rate: number) => batchSize * model.blockSize * rate,
    "steps/s": (rate: number) => rate,
    "ms": (rate: number) => 1000 / rate,
  }[unit];
  const request = { kind: "training", batchSize, logInterval, ...model } as const;
  return { name: `training, ${name}`, unit, value, request, alone: model.nEmbd > 128 };
}

/** Training of a LoRA adapter on c_attn, with the base model frozen. */
export function adapter(setting: Setting, rank: number): Measure {
  const whole = training(setting, "ms");
  const request = { ...whole.request as Request & { kind: "training" }, kind: "adapter", rank } as const;
  return { ...whole, name: `LoRA of rank ${rank}, ${setting.name}`, request };
}

/** Decoding one sequence from one token up to the block size, repeatedly. */
export function decoding({ name, model }: Setting): Measure {
  return {
    name: `decoding, ${name}`,
    unit: "tokens/s",
    value: (rate) => rate,
    request: { kind: "decoding", ...model },
  };
}

/**
 * Reading memory from one end to the other. `threads` determines how many parts of the memory this library reads at
 * once.
 */
export function memory(bytes: number, threads: number): Measure {
  const value = (rate: number) => 1e-9 * bytes * rate;
  const name = `reading ${(1e-6 * bytes).toPrecision(3)} MB`;
  return { name, unit: "GB/s", value, request: { kind: "memory", bytes, threads } };
}
