/**
 * GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415): y = x · Φ(x), where Φ is the standard normal distribution
 * function:
 *
 *     none:  Φ(x) = ½ (1 + erf(x / √2)),                             Φ′(x) = exp(−x² / 2) / √(2π)
 *     tanh:  Φ(x) ≈ ½ (1 + tanh u),  u = √(2/π) (x + 0.044715 x³),   Φ′(x) ≈ ½ (1 − tanh² u) u′
 *
 * Backward: dx += dy · (Φ(x) + x · Φ′(x)). nanoGPT uses `none`; GPT-2's checkpoints were trained with `tanh`.
 */
import { f32, kernel, withLines } from "../../src/kernel.ts";
import type { Locals, WasmFunction } from "../../src/wasm/assembler.ts";
import { erf } from "./erf.ts";
import backwardSource from "./gelu_backward.wgsl.ts";
import forwardSource from "./gelu_forward.wgsl.ts";
import * as wasm from "./wasm.ts";

/** Φ(x) and Φ′(x). */
type Normal = (x: number) => readonly [cumulative: number, density: number];

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI), CUBIC = 0.044715;

const exact: Normal = (x) => [0.5 * (1 + erf(x * Math.SQRT1_2)), Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI)];

const tanh: Normal = (x) => {
  const t = Math.tanh(SQRT_2_OVER_PI * (x + CUBIC * x ** 3)), slope = SQRT_2_OVER_PI * (1 + 3 * CUBIC * x ** 2);
  return [0.5 * (1 + t), 0.5 * (1 - t * t) * slope];
};

/** A workgroup owns 1024 elements. */
const workgroups = ({ n }: Record<"n", number>) => Math.ceil(n / 1024);

type Emit<K extends string> = (f: WasmFunction, locals: Locals<K>) => void;

function declare(
  way: "erf" | "tanh",
  normal: Normal,
  forward: Emit<"x" | "y" | "begin" | "end">,
  backward: Emit<"dy" | "x" | "dx" | "begin" | "end">,
) {
  return {
    forward: kernel({
      name: `gelu_${way}_forward`,
      reads: { x: f32("n") },
      writes: { y: f32("n") },
      reference({ x, y }, { n }) {
        for (let i = 0; i < n; i++) y[i] = x[i] * normal(x[i])[0];
      },
      cpu: { tasks: ({ n }) => n, emit: forward },
      gpu: {
        get source() {
          return withLines(forwardSource, { tail: `fn tail(a: f32) -> f32 { return ${way}_tail(a); }` });
        },
        entry: "gelu_forward",
        workgroups,
      },
    }),
    backward: kernel({
      name: `gelu_${way}_backward`,
      reads: { dy: f32("n"), x: f32("n") },
      updates: { dx: f32("n") },
      reference({ dy, x, dx }, { n }) {
        for (let i = 0; i < n; i++) {
          const [cumulative, density] = normal(x[i]);
          dx[i] += dy[i] * (cumulative + x[i] * density);
        }
      },
      cpu: { tasks: ({ n }) => n, emit: backward },
      gpu: {
        get source() {
          return withLines(backwardSource, { slope: `fn slope(a: f32) -> f32 { return ${way}_slope(a); }` });
        },
        entry: "gelu_backward",
        workgroups,
      },
    }),
  };
}

export const geluErf = declare("erf", exact, wasm.geluErfForward, wasm.geluErfBackward);
export const geluTanh = declare("tanh", tanh, wasm.geluTanhForward, wasm.geluTanhBackward);
