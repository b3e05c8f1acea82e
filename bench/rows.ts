/**
 * Generation of many texts at once, for bench/inference.ts: this library, llama.cpp, node-llama-cpp and transformers
 * take turns. Their rates are compared with the limits of the machine, which are measured in the same run.
 *
 * A step generates one token of each text. It reads all matrices once, reads the keys and values of each text, and
 * multiplies each text's vector by the matrices. The least time for this is the time of reading the memory or the time
 * of the arithmetic, whichever is longer (the roofline). It is computed with keys and values in f32.
 */
import { npm } from "../scripts/npm.ts";
import { createDevice } from "../mod.ts";
import { saveGguf } from "../src/checkpoint/mod.ts";
import { CharacterTokenizer } from "../src/tokenizer/mod.ts";
import { type Measure, memory, product, type RowsRequest } from "./measures.ts";
import { Peer, startPyTorch } from "./peer.ts";
import { compare } from "./peers.ts";
import { type Figures, show } from "./rounds.ts";
import { script, type Side } from "./sides.ts";
import { randomModel } from "./subjects.ts";

type Config = Omit<RowsRequest, "kind" | "rows" | "prompt" | "tokens" | "weights" | "gguf">;
type Weights = RowsRequest["weights"];

export interface RowsOptions {
  readonly weights: readonly Weights[];
  /** Numbers of texts at once, one per measurement. */
  readonly counts: readonly number[];
  readonly threads: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly small: boolean;
  readonly sides: readonly Side[];
  readonly print: (line: string) => void;
  readonly note: (line: string) => void;
}

/** Tokens of each prompt, and tokens generated after it. On average 64 tokens are in the cache. */
const PROMPT = 32, TOKENS = 64;
const GGUF_TYPES = { f32: "F32", bf16: "BF16", q8_0: "Q8_0" } as const, BYTES = { f32: 4, bf16: 2, q8_0: 34 / 32 };

/**
 * Returns the libraries that can run. Prints a line for each library: its version and device, or why it is left out.
 */
export async function rowSides(
  { threads, llama, node_llama }: { threads: number; llama: string; node_llama: string },
  print: (line: string) => void,
): Promise<Side[]> {
  const deno = (file: string, permissions: string[], ...args: string[]) => () =>
    Peer.start(Deno.execPath(), { args: ["run", "--no-prompt", ...permissions, script(file), ...args] });
  const absent = (how: string) => () => Promise.resolve(Peer.absent(how));
  const all: Side[] = [
    {
      name: "ours",
      kinds: { rows: "rows", memory: "memory", product: "product" },
      start: deno("ours.ts", ["--allow-read", "--allow-env=DENO_V8_FLAGS"], `${threads}`),
    },
    {
      name: "PyTorch",
      kinds: { memory: "memory" },
      start: () => startPyTorch({ args: ["cpu", `--threads=${threads}`] }),
    },
    {
      name: "llama-batched-bench",
      kinds: { rows: "rows" },
      start: llama ? deno("llama_batched.ts", [`--allow-run=${llama}`], llama, `${threads}`) : absent(
        "pass --llama=PATH of llama-batched-bench; build it from llama.cpp's sources, which llama-cpp-python's sdist contains",
      ),
    },
    {
      name: "node-llama-cpp",
      kinds: { rows: "rows" },
      start: node_llama
        ? () => Peer.start("node", { args: [script("node_llama.mjs"), node_llama, `${threads}`] })
        : absent(`pass --node_llama=FOLDER, in which you ran npm install --ignore-scripts ${npm("node-llama-cpp")}`),
    },
    {
      name: "transformers, generate()",
      kinds: { rows: "rows" },
      takes: ({ request }) => request.kind === "rows" && request.weights === "f32",
      start: () => startPyTorch({ args: ["cpu", `--threads=${threads}`, "--transformers"] }),
    },
  ];
  const sides: Side[] = [];
  for (const side of all) {
    const peer = await side.start();
    print(`- ${side.name}: ${peer.error ? `left out: ${peer.error}` : peer.device}`);
    await peer.close();
    if (!peer.error) sides.push(side);
    else if (side === all[0]) throw new Error(`there is nothing to compare with: ${peer.error}`);
  }
  return sides;
}

/** Measures one model, and prints a line with the machine's limits and then the model's table. */
export async function benchRows(name: string, config: Config, options: RowsOptions): Promise<void> {
  const { print, sides, threads, small } = options, heard = new Map<string, string>();
  const turns = (measure: Measure) => compare(measure, sides, { ...options, heard });
  const bestOf = (figures: Map<Side, Figures>) => Math.max(...[...figures.values()].map(({ best }) => best));
  const reads = await turns(memory(small ? 1e6 : 500e6, threads)), size = small ? 48 : 512;
  const limits = { memory: bestOf(reads), product: bestOf(await turns(product(["NN", size, size, size]))) };
  const each = [...reads].map(([side, { best }]) => `${side.name} ${show(best, 3)}`).join(", ");
  print(
    `\n${name}; memory is read at ${show(limits.memory, 3)} GB/s (${each}), products ${show(limits.product, 3)} GF/s\n`,
  );
  const head = ["weights", "texts", "side", "tokens/s, best", "median", "to ours", "of the limit"];
  print(`| ${head.join(" | ")} |\n|${" --- |".repeat(head.length)}`);
  const prompt = Math.min(PROMPT, config.blockSize / 2), tokens = Math.min(TOKENS, config.blockSize - prompt);
  const folder = sides.some(({ name }) => name.includes("llama")) ? await Deno.makeTempDir() : undefined;
  try {
    for (const weights of options.weights) {
      const gguf = folder && `${folder}/${weights}.gguf`;
      if (gguf) await writeGguf(gguf, config, weights);
      for (const rows of options.counts) {
        const request: RowsRequest = { kind: "rows", rows, prompt, tokens, weights, gguf, ...config };
        const said = `${name}, ${weights}, ${rows} at once`, value = (rate: number) => rate;
        const figures = await turns({ name: said, unit: "tokens/s", value, request }), limit = limitOf(request, limits);
        const [ours] = [...figures].filter(([{ name }]) => name === "ours").map(([, { median }]) => median);
        for (const [side, { best, median }] of figures) {
          const ratios = [ours && show(median / ours, 3), `${(100 * best / limit).toFixed(0)} %`];
          print(`| ${[weights, rows, side.name, show(best), show(median), ...ratios].join(" | ")} |`);
        }
      }
      if (gguf) await Deno.remove(gguf);
    }
  } finally {
    if (folder) await Deno.remove(folder, { recursive: true });
  }
  for (const [name, what] of heard) if (name.includes("left out")) print(`- ${name}: ${what}`);
}

/**
 * The most tokens a second, counting all texts, that the machine allows if it reads `memory` GB/s and computes
 * `product` GF/s.
 */
export function limitOf(
  { rows, prompt, tokens, weights, nLayer, nEmbd, vocabSize }: RowsRequest,
  { memory, product }: Readonly<Record<"memory" | "product", number>>,
): number {
  const matrices = 12 * nLayer * nEmbd ** 2 + vocabSize * nEmbd, context = 2 * nLayer * nEmbd * (prompt + tokens / 2);
  const bytes = BYTES[weights] * matrices + 4 * rows * context, flops = 2 * rows * (matrices + context);
  return rows / Math.max(1e-9 * bytes / memory, 1e-9 * flops / product);
}

async function writeGguf(path: string, config: Config, weights: Weights): Promise<void> {
  using device = await createDevice("cpu", { threads: 1 });
  const tokenizer = new CharacterTokenizer(Array.from({ length: 64 }, (_, i) => String.fromCharCode(33 + i))); // any characters
  await saveGguf(path, randomModel(device, config, weights), { tokenizer, dtype: GGUF_TYPES[weights] });
}
