import { type I32, type I32Local, Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { exp } from "../../src/wasm/math.ts";
import { scaleOf } from "./blocks.ts";

type Arguments = Locals<
  "qkv" | "slot" | "position" | "cache" | "y" | "N" | "slots" | "S" | "heads" | "width" | "begin" | "end"
>;

/**
 * Token n's place in its slot, the address of a head's keys and values in that slot, and whether the cache has the
 * slot.
 */
function placeOf(f: WasmFunction, { slot, position, cache, slots, S, heads, width }: Arguments, n: I32) {
  const { select, ltSigned, min, add, sub, mul, lt, at, loadAt } = f.i32, number = loadAt(slot, n);
  const given = loadAt(position, n), place = min(select(ltSigned(given, 0), 0, given), sub(S, 1));
  const row = mul(width, 2); // elements of a token's key and value in one head
  const first = (head: I32) => at(cache, mul(mul(add(mul(number, heads), head), S), row));
  return { isThere: lt(number, slots), place, first, row }; // unsigned, so a negative slot is too large
}

/**
 * Copies a head's key and value from qkv, where the value is C elements after the key, to the cache, where the value
 * follows the key.
 */
function keep(f: WasmFunction, key: I32Local, into: I32Local, { heads, width }: Arguments): void {
  const { mul, at } = f.i32;
  for (const [x, y] of [[key, into], [at(key, mul(heads, width)), at(into, width)]]) {
    f.forEach(0, width, (c, v) => v.store(y, c, v.load(x, c)));
  }
}

/** Writes the keys and values of tokens `begin` to `end` to the cache. */
export function append(f: WasmFunction, of: Arguments): void {
  const { add, mul, at } = f.i32, { qkv, heads, width, begin, end } = of, C = mul(heads, width);
  f.loop(begin, end, 1, (n) => {
    const { isThere, place, first, row } = placeOf(f, of, n), keys = at(qkv, mul(add(mul(n, 3), 1), C));
    const each = (head: I32Local) => keep(f, at(keys, mul(head, width)), at(first(head), mul(place, row)), of);
    f.when(isThere, () => f.loop(0, heads, 1, each));
  });
}

/**
 * Computes heads `begin` to `end` of all tokens. If N is 1, each head also writes its part of the key and of the value.
 */
export function attend(f: WasmFunction, of: Arguments): void {
  const { N, heads, begin, end } = of, alone = f.i32.eq(N, 1);
  f.loop(begin, end, 1, (task) => attendTo(f, of, f.i32.div(task, heads), f.i32.rem(task, heads), alone));
}

/**
 * Computes one query: its dot products with all keys that it sees, their softmax, and the weighted sum of the values.
 */
function attendTo(f: WasmFunction, of: Arguments, n: I32Local, head: I32Local, writes: I32Local): void {
  const { qkv, cache, y, heads, width } = of, { add, mul, at } = f.i32, C = mul(heads, width), h = mul(head, width);
  const { isThere, place, first, row } = placeOf(f, of, n), stride = mul(row, cache.bytes), keys = add(place, 1);
  const query = at(at(qkv, mul(mul(n, 3), C)), h), out = at(at(y, mul(n, C)), h);
  const key = first(head), value = at(key, width), scores = f.scratch(0), scale = f.splat(scaleOf(f, width));

  const see = () => {
    f.when(writes, () => keep(f, at(query, C), at(key, mul(place, row)), of));
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
    /**
     * Computes `count` vectors of output columns at once. Their sums are independent, so that the additions overlap in
     * the processor.
     */
    const weigh = (v: Lanes, count: number) => (column: I32) => {
      const sums = Array.from({ length: count }, () => v.accumulator()), values = at(value, column);
      f.loop(0, keys, 1, (s) => {
        const weight = v.loadSplat(at(scores, s), 0);
        sums.forEach((sum, i) => v.assign(sum, v.madd(weight, v.loadFrom(values, 8 * cache.bytes * i), sum)));
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

/**
 * Copies heads `begin` to `end`, counted over all pairs of slots. The places of a head are contiguous, and are copied
 * as 32-bit words.
 */
export function copy(
  f: WasmFunction,
  { from, to, count, cache, slots, S, heads, width, begin, end }: Locals<
    "from" | "to" | "count" | "cache" | "slots" | "S" | "heads" | "width" | "begin" | "end"
  >,
): void {
  const { mul, add, at, lt, and, div, rem, loadAt, select, ltSigned, min } = f.i32, words = f.i32.copy(cache);
  const row = mul(width, cache.bytes / 2);
  f.loop(begin, end, 1, (task) => {
    const i = div(task, heads), head = rem(task, heads), [source, target] = [from, to].map((slot) => loadAt(slot, i));
    const [x, y] = [source, target].map((slot) => at(words, mul(mul(add(mul(slot, heads), head), S), row)));
    const given = loadAt(count, i), places = min(select(ltSigned(given, 0), 0, given), S);
    f.when(
      and(lt(source, slots), lt(target, slots)),
      () => f.forEach(0, mul(places, row), (c, v) => v.store(y, c, v.load(x, c))),
    );
  });
}
