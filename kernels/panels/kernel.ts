/** y = x, a matrix that products will read: on the CPU in panels. From a transposed x, `transpose` makes the same. */
import { f32, kernel, laid } from "../../src/kernel.ts";
import { intoPanels } from "./wasm.ts";

/** Copies a matrix into panels; devices without panels have no use for it. */
export const layOut = kernel({
  name: "lay_out",
  reads: { x: f32("rows", "length") },
  writes: { y: laid("rows", "length") },
  reference: ({ x, y }) => y.set(x),
  cpu: intoPanels<"rows", "length">("rows", "length", "k"),
});
