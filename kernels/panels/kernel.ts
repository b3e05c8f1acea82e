/**
 * y = x, stored in the layout that products read fastest: panels on the CPU. `transpose` makes the same panels from xᵀ.
 */
import { f32, kernel, laid } from "../../src/kernel.ts";
import { intoPanels } from "./wasm.ts";

/** Copies a matrix into panels. Devices without panels do not use it. */
export const layOut = kernel({
  name: "lay_out",
  reads: { x: f32("rows", "length") },
  writes: { y: laid("rows", "length") },
  reference: ({ x, y }) => y.set(x),
  cpu: intoPanels<"rows", "length">("rows", "length", "k"),
});
