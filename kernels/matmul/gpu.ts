/** The GPU's matrix products: which shader computes one, by its sizes, and the lines in which the shaders' forms differ. */
import type { GpuPass } from "../../src/kernel.ts";
import tileSource from "./matmul.wgsl" with { type: "text" };
import fewRowsSource from "./matmul_few_rows.wgsl" with { type: "text" };
import partsSource from "./matmul_parts.wgsl" with { type: "text" };
import type { Form } from "./wasm.ts";

type Sizes = Record<"batch" | "M" | "N" | "K", number>;
type Type = "f32" | "vec4<f32>";
/** The b of NT and NN, a weight, is bound as words: f32 or bf16, two in one. */
const WORDS = { "f32": "u32", "vec4<f32>": "vec4<u32>" } as const;

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
      source: fewRowsSource + bindings(form, { ab: "vec4<f32>", c: "f32", bias }),
      entry: "matmul_few_rows",
      workgroups: (sizes) =>
        planOf(form, sizes).fewRows ? sizes.batch * Math.ceil(sizes.M / 4) * Math.ceil(sizes.N / 8) : 0,
    });
  }
  for (const [tile, fours] of [[128, true], [64, true], [64, false]] as const) {
    for (const inParts of form === "TN" ? [false, true] : [false]) {
      passes.push({
        source: tiled(form, { tile, fours, inParts, bias }),
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
      source: partsSource + bindings(form, { ab: "f32", c: "f32" }) + workspace("f32"),
      entry: "matmul_parts",
      workgroups: (sizes) => planOf(form, sizes).parts > 1 ? Math.ceil(elements(sizes) / 256) : 0,
      workspace: (sizes) => planOf(form, sizes).parts > 1 ? elements(sizes) * planOf(form, sizes).parts : 0,
    });
  }
  return passes;
}
const elements = ({ batch, M, N }: Sizes) => batch * M * N;

/** The operands, and what becomes of an element's, or four elements', products. */
function bindings(form: Form, { ab, c, bias = false }: { ab: Type; c: Type; bias?: boolean }): string {
  const { sizes, a, b } = FORMS[form];
  return `
struct Params { ${sizes.map((name) => `${name}: u32`).join(", ")} }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<${ab}>; // (batch, ${a.join(", ")})
@group(0) @binding(2) var<storage, read> b: array<${form === "TN" ? ab : WORDS[ab]}>; // (batch, ${b.join(", ")})
${form === "TN" ? "" : weight(ab)}
${
    bias
      ? `@group(0) @binding(3) var<storage, read> bias: array<${c}>; // (N)
@group(0) @binding(4) var<storage, read_write> c: array<${c}>; // (batch, M, N)
fn finish(at: u32, column: u32, value: ${c}) { c[at] = bias[column] + value; }`
      : `@group(0) @binding(3) var<storage, read_write> c: array<${c}>; // (batch, M, N)
override fresh_c: bool = false; // c holds garbage: write instead of adding
fn finish(at: u32, column: u32, value: ${c}) { c[at] = select(c[at], ${c}(), fresh_c) + value; }`
  }
`;
}
/** What reads an element, or four, of b; bf16 lie the first in the lower half of a word, and fours in half of a vector. */
const weight = (type: Type) => `
override bf16_b: bool = false;
fn weight(at: u32) -> ${type} {
  ${
  type === "f32"
    ? `if (bf16_b) { return bitcast<f32>(select(b[at / 2u] << 16u, b[at / 2u] & 0xffff0000u, at % 2u == 1u)); }`
    : `if (bf16_b) {
    let eight = b[at / 2u];
    let words = select(eight.xy, eight.zw, at % 2u == 1u);
    return bitcast<vec4f>(vec4u(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
  }`
}
  return bitcast<${type}>(b[at]);
}`;
const workspace = (type: Type) => `
@group(0) @binding(4) var<storage, read_write> parts: array<${type}>; // the workspace: (parts, batch, M, N)
`;

function tiled(form: Form, options: { tile: number; fours: boolean; inParts: boolean; bias: boolean }): string {
  const { tile, fours, inParts, bias } = options, { a, b } = FORMS[form], type = fours ? "vec4<f32>" : "f32";
  return `${tileSource}
const TILE = ${tile}u;
const A_ALONG_K = ${a[1] === "K"};
const B_ALONG_K = ${b[1] === "K"};
${bindings(form, { ab: type, c: type, bias })}${inParts ? workspace(type) : ""}${fetch("a", a, fours)}${
    fetch("b", b, fours, form !== "TN")
  }${put(fours, inParts)}`;
}

/** Functions that fetch a place of an operand, and four neighbours, or zeros outside of it. */
function fetch(
  name: "a" | "b",
  [rows, length]: readonly [string, string],
  fours: boolean,
  isWeight = false,
): string {
  const place = `(batch * params.${rows} + row) * params.${length} + at`;
  const element = (at: string) => isWeight ? `weight(${at})` : `${name}[${at}]`;
  if (fours) {
    return `
fn ${name}_four(batch: u32, row: u32, at: u32) -> vec4f {
  if (row >= params.${rows} || at >= params.${length}) { return vec4f(); }
  return ${element(`(${place}) / 4u`)};
}`;
  }
  return `
fn ${name}_four(batch: u32, row: u32, at: u32) -> vec4f {
  let first = ${place};
  var four = vec4f();
  for (var i = 0u; i < 4u && row < params.${rows} && at + i < params.${length}; i++) { four[i] = ${
    element("first + i")
  }; }
  return four;
}`;
}

/** A function that hands on four neighbours in c, together or one by one, to `finish` or to the parts. */
function put(fours: boolean, inParts: boolean): string {
  const [name, type, width] = fours ? ["put", "vec4<f32>", 4] : ["put_one", "f32", 1];
  const ones = `
fn put(part: u32, batch: u32, row: u32, column: u32, values: vec4f) {
  for (var i = 0u; i < 4u; i++) { put_one(part, batch, row, column + i, values[i]); }
}`;
  return `
fn ${name}(part: u32, batch: u32, row: u32, column: u32, value: ${type}) {
  if (row >= params.M || column >= params.N) { return; }
  let at = ((batch * params.M + row) * params.N + column) / ${width}u;
  ${
    inParts
      ? `parts[part * (params.batch * params.M * params.N / ${width}u) + at] = value;`
      : `finish(at, column / ${width}u, value);`
  }
}${fours ? "" : ones}`;
}
