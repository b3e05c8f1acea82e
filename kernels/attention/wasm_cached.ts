import { type I32, type I32Local, Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { exp } from "../../src/wasm/math.ts";
import { scaleOf } from "./blocks.ts";

type Arguments = Locals<
  "qkv" | "slot" | "position" | "cache" | "y" | "N" | "slots" | "S" | "heads" | "width" | "begin" | "end"
>;

/** Where token n stands: whether anywhere, its place in its slot, and its slot's first element in the cache. */
function placeOf(f: WasmFunction, { slot, position, cache, slots, S, heads, width }: Arguments, n: I32) {
  const { select, ltSigned, min, sub, mul, lt, at, loadAt } = f.i32, number = loadAt(slot, n);
  const given = loadAt(position, n), place = min(select(ltSigned(given, 0), 0, given), sub(S, 1));
  const row = mul(mul(heads, width), 2); // a token's key and value
  const first = at(cache, mul(mul(number, S), row));
  return { isThere: lt(number, slots), place, first, row }; // unsigned: no negative number is a slot
}

/** Tokens `begin` to `end`: their keys and values, side by side in both, go into the cache. */
export function append(f: WasmFunction, of: Arguments): void {
  const { mul, at } = f.i32, { qkv, heads, width, begin, end } = of, C = mul(heads, width);
  f.loop(begin, end, 1, (n) => {
    const { isThere, place, first, row } = placeOf(f, of, n);
    const from = at(at(qkv, mul(mul(n, 3), C)), C), into = at(first, mul(place, row));
    f.when(isThere, () => f.forEach(0, row, (c, v) => v.store(into, c, v.load(from, c))));
  });
}

/** Heads `begin` to `end` of all tokens; of a pass's only token each head writes its part of the key and of the value. */
export function attend(f: WasmFunction, of: Arguments): void {
  const { N, heads, begin, end } = of, alone = f.i32.eq(N, 1);
  f.loop(begin, end, 1, (task) => attendTo(f, of, f.i32.div(task, heads), f.i32.rem(task, heads), alone));
}

/** One query: dot products with all keys that it sees, their softmax, the weighted sum of the values. */
function attendTo(f: WasmFunction, of: Arguments, n: I32Local, head: I32Local, writes: I32Local): void {
  const { qkv, y, heads, width } = of, { add, mul, at } = f.i32, C = mul(heads, width), h = mul(head, width);
  const { isThere, place, first, row } = placeOf(f, of, n), stride = mul(row, of.cache.bytes), keys = add(place, 1);
  const query = at(at(qkv, mul(mul(n, 3), C)), h), out = at(at(y, mul(n, C)), h);
  const key = at(first, h), value = at(key, C), scores = f.scratch(0), scale = f.splat(scaleOf(f, width));

  const see = () => {
    f.when(writes, () => {
      for (const [part, kept] of [key, value].entries()) {
        const from = at(query, mul(C, 1 + part)), into = at(kept, mul(place, row));
        f.forEach(0, width, (c, v) => v.store(into, c, v.load(from, c)));
      }
    });
    const dots = (count: number) => (s: I32Local) => {
      const rows = Array.from({ length: count }, (_, i) => at(key, mul(add(s, i), row)));
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
    const share = f.splat(f.f32.div(1, sum));
    /** Of `count` times as many columns as there are lanes, all at once: their sums do not wait for one another. */
    const weigh = (v: Lanes, count: number) => (column: I32) => {
      const sums = Array.from({ length: count }, () => v.accumulator()), values = at(value, column);
      f.loop(0, keys, 1, (s) => {
        const weight = v.loadSplat(at(scores, s), 0);
        sums.forEach((sum, i) => v.assign(sum, v.madd(weight, v.loadFrom(values, 8 * of.cache.bytes * i), sum)));
        f.i32.advance(values, stride);
      });
      sums.forEach((sum, i) => v.storeTo(at(out, column), 32 * i, v.mul(sum, share)));
    };
    const eight = new Lanes(f, 8);
    const rest = f.loop(f.loop(0, width, 32, weigh(eight, 4)), width, 8, weigh(eight, 1));
    f.loop(rest, width, 1, weigh(new Lanes(f, 1), 1));
  };
  const zero = f.splat(0);
  f.when(isThere, see, () => f.forEach(0, width, (c, v) => v.store(out, c, zero)));
}

/** Places `begin` to `end` of all pairs of slots, in words, whatever lies there. */
export function copy(
  f: WasmFunction,
  { from, to, count, cache, slots, S, heads, width, begin, end }: Locals<
    "from" | "to" | "count" | "cache" | "slots" | "S" | "heads" | "width" | "begin" | "end"
  >,
): void {
  const { mul, add, at, lt, and, div, rem, loadAt, ltSigned } = f.i32, row = mul(mul(heads, width), cache.bf16 ? 1 : 2);
  const words = f.i32.copy(cache);
  f.loop(begin, end, 1, (task) => {
    const i = div(task, S), place = rem(task, S), [source, target] = [from, to].map((slot) => loadAt(slot, i));
    const [x, y] = [source, target].map((slot) => at(words, mul(add(mul(slot, S), place), row)));
    const isThere = and(lt(source, slots), lt(target, slots));
    f.when(
      and(isThere, ltSigned(place, loadAt(count, i))),
      () => f.forEach(0, row, (c, v) => v.store(y, c, v.load(x, c))),
    );
  });
}
