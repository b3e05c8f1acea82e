/** Who is compared, and how each is started: every one is a process of its own. */
import { v8Flags, wideAvailable } from "../src/cli/v8_flags.ts";
import type { Measure, Request } from "./measures.ts";
import { Peer, startPyTorch } from "./peer.ts";

export interface Side {
  readonly name: string;
  /** Which kinds of request it answers, and what it calls them. */
  readonly kinds: Readonly<Partial<Record<Request["kind"], string>>>;
  /** The column of ratios that it is the 1 of; of several with one name the fastest is. */
  readonly reference?: string;
  /** Whether it is measured at this; as a rule it is. */
  takes?(measure: Measure): boolean;
  start(): Promise<Peer>;
}

export interface SidesOptions {
  readonly threads: number;
  /** Python's libraries once more, held to 256-bit vectors. */
  readonly avx2: boolean;
}

const ALL = { product: "product", training: "training", decoding: "decoding" };
const script = (name: string) => decodeURIComponent(new URL(name, import.meta.url).pathname);

/** What holds MKL, PyTorch's own kernels and oneDNN to the widest vectors that WebAssembly can get from V8. */
const AVX2 = { MKL_ENABLE_INSTRUCTIONS: "AVX2", ATEN_CPU_CAPABILITY: "avx2", ONEDNN_MAX_CPU_ISA: "AVX2" };

export function sides({ threads, avx2 }: SidesOptions): Side[] {
  return [ours("wide", threads), ours("narrow", threads), ...python(threads), ...(avx2 ? python(threads, true) : [])];
}

function ours(mode: "wide" | "narrow", threads: number): Side {
  const env = { DENO_V8_FLAGS: v8Flags(mode === "wide") };
  const args = ["run", "--no-prompt", "--allow-read", "--allow-env=DENO_V8_FLAGS", script("ours.ts"), `${threads}`];
  const here = mode === "narrow" || wideAvailable();
  const start = () =>
    here ? Peer.start(Deno.execPath(), { args, env }) : Promise.resolve(Peer.absent("not in this V8"));
  return { name: `ours, ${mode}`, kinds: ALL, ...(mode === "wide" && { reference: "ours" }), start };
}

function python(threads: number, avx2 = false): Side[] {
  const held = avx2 ? ", 256 bits" : "", env = avx2 ? AVX2 : undefined;
  const start = (...args: string[]) => () => startPyTorch({ args: ["cpu", `--threads=${threads}`, ...args], env });
  const reference = `PyTorch${held}`;
  return [
    { name: `PyTorch${held}`, kinds: { product: "product", training: "training" }, reference, start: start() },
    { name: `PyTorch, compiled${held}`, kinds: { training: "training" }, start: start("--compile") },
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
