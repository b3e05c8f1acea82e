/** What generating does to token ids without the host: each row has its latest token, its place, and what it has chosen. */
import { i32, kernel } from "../../src/kernel.ts";
import advanceSource from "./advance.wgsl.ts";
import proceedSource from "./proceed.wgsl.ts";
import * as wasm from "./wasm.ts";

/** counter += by, wrapping at 32 bits, of each of n counters. */
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
 * The end of a step of R rows, whose choices of some steps are stored until the host reads them: ids = chosen, position += 1,
 * history[first / R mod steps] = chosen, then first += R, the number of choices so far.
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
