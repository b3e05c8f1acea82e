import type { Locals, WasmFunction } from "../../src/wasm/assembler.ts";

/** Elements whose squares are summed in f32; few enough for six digits of precision. */
const BLOCK = 1024;
const blocksOf = ({ n }: Record<"n", number>) => Math.ceil(n / BLOCK);

export const gradientNorm = [
  {
    tasks: blocksOf,
    workspace: blocksOf,
    emit(
      f: WasmFunction,
      { gradient, n, workspace, begin, end }: Locals<"gradient" | "n" | "workspace" | "begin" | "end">,
    ) {
      f.loop(begin, end, 1, (block) => {
        const first = f.i32.mul(block, BLOCK), from = f.i32.at(gradient, first);
        const sum = f.sum(f.i32.min(BLOCK, f.i32.sub(n, first)), (at, v) => {
          const g = v.load(from, at);
          return v.mul(g, g);
        });
        f.f32.store(workspace, block, sum);
      });
    },
  },
  {
    tasks: () => 1,
    emit(f: WasmFunction, { norm, n, workspace }: Locals<"norm" | "n" | "workspace">) {
      const sum = f.f64.constant(0), blocks = f.i32.divUp(n, BLOCK);
      f.loop(0, blocks, 1, (block) => f.assign(sum, f.f64.add(sum, f.f64.fromF32(f.f32.loadAt(workspace, block)))));
      f.f32.store(norm, 0, f.f32.fromF64(f.f64.sqrt(sum)));
    },
  },
];
