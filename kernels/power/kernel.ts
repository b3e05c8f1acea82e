/**
 * y = factor · x^exponent, with one exponent for all elements. With factor n and exponent n − 1, it is the derivative
 * of xⁿ.
 */
import { f32, kernel } from "../../src/kernel.ts";
import source from "./power.wgsl.ts";
import * as wasm from "./wasm.ts";

export const power = kernel({
  name: "power",
  reads: { x: f32("n") },
  writes: { y: f32("n") },
  params: { exponent: "f32", factor: "f32" },
  reference({ x, y }, { n }, { exponent, factor }) {
    for (let i = 0; i < n; i++) y[i] = factor * x[i] ** exponent;
  },
  cpu: { tasks: ({ n }) => n, work: ({ n }) => 6 * n, emit: wasm.power },
  gpu: { source, entry: "power", workgroups: ({ n }) => Math.ceil(n / 256) },
});
