/** The GPU's matrix products: which shader computes one, by its sizes, and the lines in which the shaders' forms differ. */
import { type GpuPass, withLines } from "../../src/kernel.ts";
import tileSource from "./matmul.wgsl.ts";
import fewRowsSource from "./matmul_few_rows.wgsl.ts";
import partsSource from "./matmul_parts.wgsl.ts";
import type { Form } from "./wasm.ts";

type Sizes = Record<"batch" | "M" | "N" | "K", number>;

/** Sizes in the order of the declaration; then how many rows a and b have in memory, and how long those are. */
const FORMS = {
  NN: { sizes: ["batch", "M", "K", "N"], a: ["M", "K"], b: ["K", "N"] },
  NT: { sizes: ["batch", "M", "K", "N"], a: ["M", "K"], b: ["N", "K"] },
  TN: { sizes: ["batch", "K", "M", "N"], a: ["K", "M"], b: ["K", "N"] },
} as const;

/** So many workgroups keep a large GPU busy: about two for each of its processors. */
const BUSY = 256;
/** A shorter part of a sum costs more to add than it saves. */
const LEAST_PART = 256;

/** How a product is computed. */
export interface Plan {
  /** By rows of b, each read once for up to four rows of a; otherwise by tiles. */
  readonly fewRows: boolean;
  /** Rows and columns of a tile. */
  readonly tile: 64 | 128;
  /** Whether four neighbours are read and written at once: the rows of a, b and c are multiples of 4 long. */
  readonly fours: boolean;
  /** Into how many parts K falls: gradients of weights have few elements, each a sum over all tokens. */
  readonly parts: number;
}

/** Chooses by sizes alone, so that the same product has the same bits each time. */
export function planOf(form: Form, sizes: Sizes): Plan {
  const { M, N, K } = sizes, { a, b } = FORMS[form];
  const fours = [sizes[a[1]], sizes[b[1]], N].every((length) => length % 4 === 0);
  const most = form === "TN" ? Math.max(1, Math.floor(K / LEAST_PART)) : 1;
  const tile = fours && most * tilesOf(sizes, 128) >= BUSY ? 128 : 64, tiles = tilesOf(sizes, tile);
  const parts = tiles >= BUSY ? 1 : Math.min(most, Math.ceil(2 * BUSY / tiles));
  return { fewRows: form === "NT" && M <= 8 && K % 4 === 0, tile, fours, parts };
}
const tilesOf = ({ batch, M, N }: Sizes, tile: number) => batch * Math.ceil(M / tile) * Math.ceil(N / tile);

/** The passes of a form's kernel. A launch takes one of them, and where K falls into parts another, which adds these. */
export function gpu(form: Form, { bias = false } = {}): GpuPass<Sizes>[] {
  const passes: GpuPass<Sizes>[] = [];
  if (form === "NT") {
    passes.push({
      get source() {
        return bias ? withLines(fewRowsSource, withBias("f32", "")) : fewRowsSource;
      },
      entry: "matmul_few_rows",
      workgroups: (sizes) =>
        planOf(form, sizes).fewRows ? sizes.batch * Math.ceil(sizes.M / 4) * Math.ceil(sizes.N / 8) : 0,
    });
  }
  for (const [tile, fours] of [[128, true], [64, true], [64, false]] as const) {
    for (const inParts of form === "TN" ? [false, true] : [false]) {
      passes.push({
        get source() {
          return tiled(form, { tile, fours, inParts, bias });
        },
        entry: "matmul",
        workgroups: (sizes) => {
          const plan = planOf(form, sizes), chosen = plan.tile === tile && plan.fours === fours;
          return !plan.fewRows && chosen && plan.parts > 1 === inParts ? tilesOf(sizes, tile) * plan.parts : 0;
        },
      });
    }
  }
  if (form === "TN") {
    passes.push({
      source: partsSource,
      entry: "matmul_parts",
      workgroups: (sizes) => planOf(form, sizes).parts > 1 ? Math.ceil(elements(sizes) / 256) : 0,
      workspace: (sizes) => planOf(form, sizes).parts > 1 ? elements(sizes) * planOf(form, sizes).parts : 0,
    });
  }
  return passes;
}
const elements = ({ batch, M, N }: Sizes) => batch * M * N;

/** With a bias: its line and that of c, bound after it, and what becomes of an element. */
const withBias = (type: string, parameters: string) => ({
  c: `@group(0) @binding(3) var<storage, read> bias: array<${type}>; ` + // (N)
    `@group(0) @binding(4) var<storage, read_write> c: array<${type}>;`, // (batch, M, N)
  finish: `fn finish(${parameters}at: u32, column: u32, value: ${type}) { c[at] = bias[column] + value; }`,
});

/** The lines of a product in tiles that differ from those of matmul.wgsl.ts. */
function tiled(form: Form, options: { tile: number; fours: boolean; inParts: boolean; bias: boolean }): string {
  const { tile, fours, inParts, bias } = options, { sizes, a, b } = FORMS[form];
  return withLines(tileSource, {
    TILE: `const TILE = ${tile}u;`,
    A_ALONG_K: `const A_ALONG_K = ${a[1] === "K"};`,
    B_ALONG_K: `const B_ALONG_K = ${b[1] === "K"};`,
    Params: `struct Params { ${sizes.map((name) => `${name}: u32`).join(", ")} }`,
    ...!fours && {
      WIDTH: "const WIDTH = 1u;",
      A: "alias A = f32;",
      B: "alias B = u32;",
      C: "alias C = f32;",
      in_c: "fn in_c(four: vec4f, i: u32) -> C { return four[i]; }",
    },
    ...bias && withBias("C", "part: u32, "),
    ...inParts && {
      c: "@group(0) @binding(4) var<storage, read_write> parts: array<C>;", // the workspace: (parts, batch, M, N)
      finish: "fn finish(part: u32, at: u32, column: u32, value: C) { " +
        "parts[part * (params.batch * params.M * params.N / WIDTH) + at] = value; }",
    },
  });
}
