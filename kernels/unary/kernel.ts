/** y = op(x), element by element, for every op with one input. */
import { f32, kernel, withLines } from "../../src/kernel.ts";
import type { Lanes, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import * as math from "../../src/wasm/math.ts";
import source from "./unary.wgsl.ts";

type LanesOf = (f: WasmFunction, v: Lanes, x: Vector) => Vector;

function declare(name: string, op: (x: number) => number, lanes: LanesOf, wgsl: string) {
  return kernel({
    name,
    reads: { x: f32("n") },
    writes: { y: f32("n") },
    reference({ x, y }, { n }) {
      for (let i = 0; i < n; i++) y[i] = op(x[i]);
    },
    cpu: {
      tasks: ({ n }) => n,
      emit: (f, { x, y, begin, end }) => f.forEach(begin, end, (at, v) => v.store(y, at, lanes(f, v, v.load(x, at)))),
    },
    gpu: {
      get source() {
        return withLines(source, { op: `fn op(x: f32) -> f32 { return ${wgsl}; }` });
      },
      entry: "unary",
      workgroups: ({ n }) => Math.ceil(n / 256),
    },
  });
}

export type UnaryKernel = ReturnType<typeof declare>;

export const neg = declare("neg", (x) => -x, (_, v, x) => v.neg(x), "-x");
export const exp = declare("exp", Math.exp, math.exp, "exp(x)");
export const log = declare("log", Math.log, math.log, "log(x)");
export const sqrt = declare("sqrt", Math.sqrt, (_, v, x) => v.sqrt(x), "sqrt(x)");
export const tanh = declare("tanh", Math.tanh, math.tanh, "hyperbolic_tangent(x)");
