/** y = condition ? a : b, element by element. An omitted branch counts as zeros, which the op's backward pass uses. */
import { f32, i32, kernel, optional } from "../../src/kernel.ts";
import source from "./where.wgsl.ts";

export const where = kernel({
  name: "where",
  reads: { condition: i32("n"), a: optional(f32("n")), b: optional(f32("n")) },
  writes: { y: f32("n") },
  reference({ condition, a, b, y }, { n }) {
    for (let i = 0; i < n; i++) y[i] = condition[i] !== 0 ? a?.[i] ?? 0 : b?.[i] ?? 0;
  },
  cpu: {
    tasks: ({ n }) => n,
    emit(f, { condition, a, b, y, begin, end }) {
      const zero = f.splatI32(0);
      f.forEach(begin, end, (at, v) => {
        const chosen = v.neI32(v.load(condition, at), zero);
        v.store(y, at, v.select(chosen, a ? v.load(a, at) : zero, b ? v.load(b, at) : zero));
      });
    },
  },
  gpu: { source, entry: "choose", file: "where.wgsl.ts", workgroups: ({ n }) => Math.ceil(n / 256) },
});
