import { type I32, type I32Local, Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { exp } from "../../src/wasm/math.ts";
import { headOf, scaleOf } from "./blocks.ts";

type Arguments = Locals<
  "qkv" | "position" | "cache" | "y" | "T" | "S" | "heads" | "width" | "begin" | "end" | "workspace"
>;

/** Heads `begin` to `end`, query after query: dot products with all keys, their softmax, the weighted sum of the values. */
export function attentionCached(f: WasmFunction, of: Arguments): void {
  const { qkv, position, cache, y, T, S, heads, width, begin, end, workspace } = of, { add, sub, mul, at } = f.i32;
  const given = f.i32.load(position), scale = f.splat(scaleOf(f, width));
  const first = f.i32.min(f.i32.select(f.i32.ltSigned(given, 0), 0, given), sub(S, T));

  f.loop(begin, end, 1, (head) => {
    const fresh = headOf(f, { T, heads, width }, head, qkv, 3), out = headOf(f, { T, heads, width }, head, y, 1);
    const kept = headOf(f, { T: S, heads, width }, head, cache, 2), scores = at(workspace, mul(head, S));
    f.loop(0, T, 1, (t) => {
      for (const part of [0, 1]) {
        const from = fresh.row(1 + part, t), into = kept.row(part, add(first, t));
        f.forEach(0, width, (c, v) => v.store(into, c, v.load(from, c)));
      }
    });

    f.loop(0, T, 1, (t) => {
      const query = fresh.row(0, t), keys = add(add(first, t), 1);
      const dots = (count: number) => (s: I32Local) => {
        const rows = Array.from({ length: count }, (_, i) => kept.row(0, add(s, i)));
        const products = f.reduce("add", count, width, (c, v) => {
          const q = v.load(query, c);
          return rows.map((row) => v.mul(q, v.load(row, c)));
        });
        products.forEach((product, i) => f.f32.store(scores, add(s, i), product));
      };
      f.loop(f.loop(0, keys, 4, dots(4)), keys, 1, dots(1));

      const greatest = f.splat(f.reduce("max", 1, keys, (s, v) => [v.load(scores, s)])[0]);
      const sum = f.sum(keys, (s, v) => {
        const e = exp(f, v, v.mul(v.sub(v.load(scores, s), greatest), scale));
        v.store(scores, s, e);
        return e;
      });
      const share = f.splat(f.f32.div(1, sum)), row = out.row(0, t), values = kept.row(1, 0);
      /** Of `count` times as many columns as there are lanes, all at once: their sums do not wait for one another. */
      const weigh = (v: Lanes, count: number) => (column: I32) => {
        const sums = Array.from({ length: count }, () => v.accumulator()), value = at(values, column);
        f.loop(0, keys, 1, (s) => {
          const weight = v.loadSplat(at(scores, s), 0);
          sums.forEach((sum, i) => v.assign(sum, v.madd(weight, v.loadFrom(value, 32 * i), sum)));
          f.i32.advance(value, kept.stride);
        });
        sums.forEach((sum, i) => v.storeTo(at(row, column), 32 * i, v.mul(sum, share)));
      };
      const eight = new Lanes(f, 8);
      const rest = f.loop(f.loop(0, width, 32, weigh(eight, 4)), width, 8, weigh(eight, 1));
      f.loop(rest, width, 1, weigh(new Lanes(f, 1), 1));
    });
  });
}
