/**
 * The sides of a comparison, and how to start each. A side is a library in one of its modes, such as PyTorch with
 * torch.compile, and runs in a process of its own.
 */
import { npm } from "../scripts/npm.ts";
import { v8Flags, wideAvailable } from "../src/cli/v8_flags.ts";
import type { Measure, Request } from "./measures.ts";
import { installed } from "./npm_peer.ts";
import { Peer, startPyTorch } from "./peer.ts";

export interface Side {
  readonly name: string;
  /** The kinds of request that the side answers, and the name by which it knows each kind. */
  readonly kinds: Readonly<Partial<Record<Request["kind"], string>>>;
  /**
   * The column of ratios in which this side is 1. If several sides name one column, the fastest of these sides is 1.
   */
  readonly reference?: string;
  /** Whether the side takes part in a measurement. Default: always. */
  takes?(measure: Measure): boolean;
  start(): Promise<Peer>;
}

export interface SidesOptions {
  readonly threads: number;
  /** Whether to measure Python's libraries again, limited to 256-bit vectors. */
  readonly avx2: boolean;
}

const ALL = { product: "product", training: "training", adapter: "adapter", decoding: "decoding" };
export const script = (name: string) => decodeURIComponent(new URL(name, import.meta.url).pathname);

/** Limits MKL, PyTorch's own kernels and oneDNN to vectors of 256 bits, the widest that V8 gives to WebAssembly. */
const AVX2 = { MKL_ENABLE_INSTRUCTIONS: "AVX2", ATEN_CPU_CAPABILITY: "avx2", ONEDNN_MAX_CPU_ISA: "AVX2" };

export function sides({ threads, avx2 }: SidesOptions): Side[] {
  return [
    ...(["wide", "narrow", "native"] as const).map((mode) => ours(mode, threads)),
    ...[...python(threads), ...(avx2 ? python(threads, true) : [])],
    javaScript("jax-js", "jax_js.ts", { packages: [npm("@jax-js/jax")] }),
    javaScript("tfjs", "tfjs.ts", { packages: [npm("@tensorflow/tfjs"), npm("@tensorflow/tfjs-backend-wasm")] }),
    javaScript("@genai-fi/nanogpt", "genai_nanogpt.ts", {
      packages: [npm("@genai-fi/nanogpt"), npm("@tensorflow/tfjs")],
      kinds: { training: "training" }, // its products are TensorFlow.js's
    }),
  ];
}

/**
 * A side that measures npm packages with a script. The script runs without this repository's deno.json, as a program of
 * any user would; its argument is the folder of its packages.
 */
function javaScript(
  name: string,
  file: string,
  { packages, kinds = { product: "product", training: "training" } }: {
    packages: readonly string[];
    kinds?: Side["kinds"];
  },
): Side {
  const permissions = ["--allow-read", "--allow-env", "--allow-sys"];
  const start = async () => {
    try {
      const args = ["run", "--no-config", "--no-prompt", ...permissions, script(file), await installed(packages)];
      return await Peer.start(Deno.execPath(), { args });
    } catch (error) {
      return Peer.absent((error as Error).message);
    }
  };
  // Larger models would take minutes a step.
  const takes = ({ request }: Measure) => request.kind !== "training" || request.nEmbd <= 128 && !request.dropout;
  return { name, kinds, takes, start };
}

/**
 * This library in a mode of V8 (wide or narrow), or with native products. Native products do not depend on V8's mode,
 * and decoding does not use them.
 */
function ours(mode: "wide" | "narrow" | "native", threads: number): Side {
  const env = { DENO_V8_FLAGS: v8Flags(mode !== "narrow" && wideAvailable()) }, native = mode === "native";
  const permissions = ["--allow-read", "--allow-env=DENO_V8_FLAGS", ...(native ? ["--allow-ffi"] : [])];
  const args = ["run", "--no-prompt", ...permissions, script("ours.ts"), `${threads}`, mode];
  const here = mode !== "wide" || wideAvailable();
  const start = () =>
    here ? Peer.start(Deno.execPath(), { args, env }) : Promise.resolve(Peer.absent("not in this V8"));
  const { decoding, ...products } = ALL, kinds = native ? products : { ...products, decoding };
  return { name: `ours, ${mode}`, kinds, ...(mode === "wide" && { reference: "ours" }), start };
}

function python(threads: number, avx2 = false): Side[] {
  const held = avx2 ? ", 256 bits" : "", env = avx2 ? AVX2 : undefined;
  const start = (...args: string[]) => () => startPyTorch({ args: ["cpu", `--threads=${threads}`, ...args], env });
  const reference = `PyTorch${held}`;
  return [
    {
      name: `PyTorch${held}`,
      kinds: { product: "product", training: "training", adapter: "adapter" },
      reference,
      start: start(),
    },
    { name: `torch.compile${held}`, kinds: { training: "training" }, start: start("--compile") },
    {
      name: `transformers, generate()${held}`,
      kinds: { decoding: "generate" },
      reference,
      start: start("--transformers"),
    },
    {
      name: `transformers, a bare loop${held}`,
      kinds: { decoding: "loop" },
      reference,
      start: start("--transformers"),
    },
  ];
}
