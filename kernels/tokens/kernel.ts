/** Kernels that update token ids and positions while generating, without the host. */
import { i32, kernel } from "../../src/kernel.ts";
import advanceSource from "./advance.wgsl.ts";
import proceedSource from "./proceed.wgsl.ts";
import * as wasm from "./wasm.ts";

/** Adds `by` to each of n counters, wrapping at 32 bits. */
export const advance = kernel({
  name: "advance",
  reads: {},
  updates: { counter: i32("n") },
  params: { by: "i32" },
  reference: ({ counter }, _, { by }) => counter.forEach((count, i) => counter[i] = count + by),
  cpu: { tasks: () => 1, emit: wasm.advance },
  gpu: { source: advanceSource, entry: "advance", workgroups: ({ n }) => Math.ceil(n / 64) },
});

/**
 * Ends a step of generation for R rows: ids = chosen, position += 1, history[first / R mod steps] = chosen, then first
 * += R. `first` is the number of tokens chosen so far. `history` holds the tokens of the last steps until the host
 * reads them.
 */
export const proceed = kernel({
  name: "proceed",
  reads: { chosen: i32("R") },
  updates: { ids: i32("R"), position: i32("R"), history: i32("steps", "R"), first: i32(1) },
  reference({ chosen, ids, position, history, first }, { R, steps }) {
    history.set(chosen, (Math.floor((first[0] >>> 0) / R) % steps) * R);
    ids.set(chosen);
    position.forEach((place, r) => position[r] = place + 1);
    first[0] += R;
  },
  cpu: { tasks: () => 1, emit: wasm.proceed },
  gpu: { source: proceedSource, entry: "proceed", workgroups: () => 1 },
});
