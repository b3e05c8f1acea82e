/** What is measured, and in which words we and every peer are asked for it: a request is a line of JSON to most of them. */
import type { GPTConfig, GPTOptions } from "../mod.ts";

export const FORMS = ["NN", "NT", "TN"] as const;
/** N marks an operand as it stands, T a transposed one. */
export type Product = readonly [form: typeof FORMS[number], M: number, K: number, N: number];

export type Request =
  | { readonly kind: "product"; readonly form: Product[0]; readonly M: number; readonly K: number; readonly N: number }
  | { readonly kind: "training"; readonly batchSize: number; readonly logInterval: number } & GPTConfig
  | { readonly kind: "adapter"; readonly rank: number; readonly batchSize: number; readonly logInterval: number }
    & GPTConfig
  | { readonly kind: "decoding" } & GPTConfig
  | { readonly kind: "memory"; readonly bytes: number; readonly threads: number }
  | RowsRequest;

/** Texts that are written at once, each from a prompt of its own. */
export type RowsRequest = {
  readonly kind: "rows";
  /** How many. */
  readonly rows: number;
  /** How many tokens a prompt has, and how many are written after it. */
  readonly prompt: number;
  readonly tokens: number;
  readonly weights: NonNullable<GPTOptions["weights"]>;
  /** Path of such a model in a file, for those who read one. */
  readonly gguf?: string;
} & Pick<GPTConfig, "nLayer" | "nHead" | "nEmbd" | "vocabSize" | "blockSize" | "activation">;

export interface Measure {
  readonly name: string;
  readonly unit: "GF/s" | "GB/s" | "tokens/s" | "steps/s" | "ms";
  /** A rate of products, steps or tokens a second, in the unit. */
  value(rate: number): number;
  readonly request: Request;
  /** Whether every measurement needs a process that is alone: one that holds gigabytes slows another's page faults. */
  readonly alone?: boolean;
}

export interface Setting {
  readonly name: string;
  readonly model: GPTConfig;
  readonly batchSize: number;
  /** Of so many losses one is read. */
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

/** The same of a LoRA adapter on c_attn, whose base is frozen. */
export function adapter(setting: Setting, rank: number): Measure {
  const whole = training(setting, "ms");
  const request = { ...whole.request as Request & { kind: "training" }, kind: "adapter", rank } as const;
  return { ...whole, name: `LoRA of rank ${rank}, ${setting.name}`, request };
}

/** One sequence from one token up to the block size, again and again. */
export function decoding({ name, model }: Setting): Measure {
  return {
    name: `decoding, ${name}`,
    unit: "tokens/s",
    value: (rate) => rate,
    request: { kind: "decoding", ...model },
  };
}

/** Reading memory from one end to the other; the threads say how many streams are ours. */
export function memory(bytes: number, threads: number): Measure {
  const value = (rate: number) => 1e-9 * bytes * rate;
  const name = `reading ${(1e-6 * bytes).toPrecision(3)} MB`;
  return { name, unit: "GB/s", value, request: { kind: "memory", bytes, threads } };
}
