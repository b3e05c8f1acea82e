/**
 * The GPU's matrix products: choosing a shader by the sizes, and the lines that differ between versions of a shader.
 */
import { type GpuPass, withLines } from "../../src/kernel.ts";
import tileSource from "./matmul.wgsl.ts";
import fewRowsSource from "./matmul_few_rows.wgsl.ts";
import partsSource from "./matmul_parts.wgsl.ts";
import type { Form } from "./wasm.ts";

type Sizes = Record<"batch" | "M" | "N" | "K", number>;

/**
 * `sizes` has the order of Params. `a` and `b` are the number of rows that the operand has in memory, and the length of
 * a row.
 */
const FORMS = {
  NN: { sizes: ["batch", "M", "K", "N"], a: ["M", "K"], b: ["K", "N"] },
  NT: { sizes: ["batch", "M", "K", "N"], a: ["M", "K"], b: ["N", "K"] },
  TN: { sizes: ["batch", "K", "M", "N"], a: ["K", "M"], b: ["K", "N"] },
} as const;

/** Workgroups that keep a large GPU busy: about two for each of its processors. */
const BUSY = 256;
/** Least number of products in a part of a sum: adding up shorter parts costs more than they save. */
const LEAST_PART = 256;

/** How a product is computed. */
export interface Plan {
  /** Whether to compute by rows of b, each read once for up to four rows of a; otherwise by tiles. */
  readonly fewRows: boolean;
  /** Rows and columns of a tile. */
  readonly tile: 64 | 128;
  /**
   * Whether four neighbouring elements are read and written at once: the rows of a, b and c are multiples of 4 long.
   */
  readonly fours: boolean;
  /**
   * Number of parts of K. Gradients of weights have few elements, each a sum over all tokens, which is cut into parts.
   */
  readonly parts: number;
}

/** Chooses the plan by sizes alone, so that a product has the same bits each time. */
export function planOf(form: Form, sizes: Sizes): Plan {
  const { M, N, K } = sizes, { a, b } = FORMS[form];
  const fours = [sizes[a[1]], sizes[b[1]], N].every((length) => length % 4 === 0);
  const most = form === "TN" ? Math.max(1, Math.floor(K / LEAST_PART)) : 1;
  const tile = fours && most * tilesOf(sizes, 128) >= BUSY ? 128 : 64, tiles = tilesOf(sizes, tile);
  const parts = tiles >= BUSY ? 1 : Math.min(most, Math.ceil(2 * BUSY / tiles));
  return { fewRows: form === "NT" && M <= 8 && K % 4 === 0, tile, fours, parts };
}
const tilesOf = ({ batch, M, N }: Sizes, tile: number) => batch * Math.ceil(M / tile) * Math.ceil(N / tile);

/**
 * The passes of a form's kernel. A launch runs one of them and, if K is in parts, a second one, which adds up the
 * parts.
 */
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

/**
 * Lines of the shader for a product with a bias: the bindings of the bias and of c, and the function that stores an
 * element.
 */
const withBias = (type: string, parameters: string) => ({
  c: `@group(0) @binding(3) var<storage, read> bias: array<${type}>; ` + // (N)
    `@group(0) @binding(4) var<storage, read_write> c: array<${type}>;`, // (batch, M, N)
  finish: `fn finish(${parameters}at: u32, column: u32, value: ${type}) { c[at] = bias[column] + value; }`,
});

/** The shader of a product in tiles: matmul.wgsl.ts with some lines replaced. */
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
