import { Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { inElementOrder, philox } from "../../src/wasm/philox.ts";

/** Elements of a task: the elements of eight counters. */
export const GROUP = 32;

type Integers = "x" | "offset" | "y" | "n" | "seed" | "stream" | "threshold" | "begin" | "end";

/**
 * Computes groups `begin` to `end`. Writes a group's factors to scratch memory, then multiplies them by its elements.
 */
export function dropout(f: WasmFunction, of: Locals<Integers, "gain">): void {
  const { x, y, n, begin, end } = of, v = new Lanes(f, 8), factors = f.scratch(0);
  const words = philox(f, of.stream, f.i32.load(of.offset), of.seed), counters = v.iota();
  const threshold = f.splat(f.f32.fromInt(of.threshold)), gain = f.splat(of.gain);

  f.loop(begin, end, 1, (group) => {
    const first = v.addI32(counters, f.splatI32(f.i32.mul(group, GROUP / 4)));
    inElementOrder(v, words(v, first)).forEach((word, i) => {
      const kept = v.ge(v.fromI32(v.shr(word, 8)), threshold); // 24 bits are exact in f32
      v.storeTo(factors, 32 * i, v.and(kept, gain));
    });
    const at = f.i32.mul(group, GROUP), [xGroup, yGroup] = [f.i32.at(x, at), f.i32.at(y, at)];
    f.forEach(0, f.i32.min(f.i32.sub(n, at), GROUP), (i, v) => {
      v.store(yGroup, i, v.mul(v.load(xGroup, i), v.load(factors, i)));
    });
  });
}
