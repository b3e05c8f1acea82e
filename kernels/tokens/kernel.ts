/**
 * What generating does to token ids without the host. Rows that go on from a cache have their latest token, its place and what
 * they have chosen; those that show the model their last S tokens have a ring of them, where token number n lies at n mod S.
 */
import { i32, kernel } from "../../src/kernel.ts";
import advanceSource from "./advance.wgsl.ts";
import appendSource from "./append.wgsl.ts";
import latestSource from "./latest.wgsl.ts";
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

/** ring[slot[b], count[slot[b]] mod S] = ids[b], then count[slot[b]] += 1; nothing where there is no such slot. */
export const append = kernel({
  name: "append",
  reads: { ids: i32("B"), slot: i32("B") },
  updates: { ring: i32("slots", "S"), count: i32("slots") },
  reference({ ids, slot, ring, count }, { B, S, slots }) {
    for (let b = 0; b < B; b++) {
      if (slot[b] >= 0 && slot[b] < slots) ring[slot[b] * S + (count[slot[b]]++ >>> 0) % S] = ids[b];
    }
  },
  cpu: { tasks: () => 1, emit: wasm.append },
  gpu: { source: appendSource, entry: "append", workgroups: ({ B }) => Math.ceil(B / 64) },
});

/** ids[b, t] = ring[slot[b], (count − T + t) mod S]: the slot's last T tokens, where there are so many. */
export const latest = kernel({
  name: "latest",
  reads: { ring: i32("slots", "S"), count: i32("slots"), slot: i32("B") },
  writes: { ids: i32("B", "T") },
  reference({ ring, count, slot, ids }, { B, S, T, slots }) {
    for (let b = 0; b < B; b++) {
      const of = Math.min(slot[b] >>> 0, slots - 1);
      for (let t = 0; t < T; t++) ids[b * T + t] = ring[of * S + Math.max(count[of] - T + t, 0) % S];
    }
  },
  cpu: { tasks: () => 1, emit: wasm.latest },
  gpu: { source: latestSource, entry: "latest", workgroups: ({ B, T }) => Math.ceil(B * T / 64) },
});
