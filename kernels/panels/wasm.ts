import type { Locals, WasmFunction } from "../../src/wasm/assembler.ts";
import { tileColumns } from "../../src/wasm/gemm.ts";
import { type Contiguous, definePack } from "../../src/wasm/packing.ts";

/** Packs x into y, panel by panel. `N` and `K` name y's rows and the length of a row. */
export function intoPanels<N extends string, K extends string>(N: N, K: K, contiguous: Contiguous) {
  return {
    tasks: (sizes: Record<N, number>) => Math.ceil(sizes[N] / tileColumns()),
    emit(f: WasmFunction, locals: Locals<"x" | "y" | "begin" | "end" | N | K>): void {
      const { mul, sub, min, at, shl } = f.i32, width = tileColumns(), pack = definePack(f, width, contiguous);
      const { x, y, begin, end, [N]: rows, [K]: length } = locals, alongK = contiguous === "k";
      f.loop(begin, end, 1, (panel) => {
        const first = mul(panel, width), source = at(x, alongK ? mul(first, length) : first);
        const count = min(sub(rows, first), width), stride = shl(alongK ? length : rows, 2);
        f.call(pack, source, stride, count, length, at(y, mul(first, length)));
      });
    },
  };
}
