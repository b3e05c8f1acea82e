/**
 * A task is a head and CHUNK of its queries, which go through the keys CHUNK by CHUNK. Scores stand transposed, (keys,
 * queries), a panel of queries at a time: softmax then goes down the lanes, and what it leaves is packed for the product
 * with V.
 *
 * A later chunk of keys may raise a query's maximum: what was summed so far is then scaled down (Milakov and Gimelshein
 * 2018, arXiv:1805.02867).
 */
import { Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { type Columns, defineMultiply, ROWS, tileColumns } from "../../src/wasm/gemm.ts";
import { exp } from "../../src/wasm/math.ts";
import { definePack } from "../../src/wasm/packing.ts";
import { defineWriteRow, type Dropout, dropoutOf, type Dropped, firstCounter, headOf } from "./blocks.ts";
import { regions, roundUp, scaleOf } from "./blocks.ts";

/** Queries of a task, and keys at a time: a multiple of every panel and of the four elements of a Philox counter. */
export const CHUNK = 256;

type Arguments = Locals<"qkv" | "y" | "max" | "sum" | "T" | "heads" | "width" | "begin" | "end"> & Dropout;

export function attentionForward(f: WasmFunction, of: Arguments): void {
  const { qkv, y, T, width, begin, end } = of, { add, sub, mul, min, at } = f.i32;
  const W = tileColumns(); // columns of a panel
  const packKeys = definePack(f, ROWS, "k"), packValues = definePack(f, ROWS, "panel");
  const transpose = definePack(f, W, "k"), multiply = defineMultiply(f, W), write = defineWriteRow(f, W);
  const softmax = defineSoftmax(f, W), rescale = defineRescale(f, W), finish = defineFinish(f);
  const dropout = dropoutOf(f, of), scale = scaleOf(f, width), rows = roundUp(f, width, ROWS), take = regions(f);
  const keys = take(mul(width, CHUNK + ROWS)), values = take(mul(rows, CHUNK)), query = take(mul(width, W));
  const scores = take((CHUNK + ROWS) * W), sums = take(mul(rows, CHUNK)), turned = take(mul(roundUp(f, width, W), W));
  const maxima = take(CHUNK), totals = take(CHUNK), factors = take(W);

  f.loop(begin, end, 1, (task) => {
    const chunks = f.i32.divUp(T, CHUNK), head = f.i32.div(task, chunks), chunk = f.i32.rem(task, chunks);
    const packed = headOf(f, of, head, qkv, 3), out = headOf(f, of, head, y, 1);
    const start = mul(chunk, CHUNK), queries = min(sub(T, start), CHUNK), panels = f.i32.divUp(queries, W);
    const lowest = f.splat(-Infinity), zero = f.splat(0);
    f.forEach(0, CHUNK, (at, v) => {
      v.store(maxima, at, lowest);
      v.store(totals, at, zero);
    });

    f.loop(0, add(chunk, 1), 1, (block) => {
      const first = mul(block, CHUNK), n = min(sub(T, first), CHUNK);
      f.call(packKeys, packed.row(1, first), packed.stride, n, width, keys);
      f.call(packValues, packed.row(2, first), packed.stride, width, n, values);
      f.loop(0, panels, 1, (panel) => {
        const left = mul(panel, W), from = add(start, left), lag = sub(from, first), visible = min(n, add(lag, W));
        const max = at(maxima, left), total = at(totals, left), sum = at(sums, mul(rows, left));
        f.call(transpose, packed.row(0, from), packed.stride, min(sub(T, from), W), width, query);
        f.call(multiply, keys, query, scores, 4 * W, roundUp(f, visible, ROWS), W, width, 0, 0);
        f.call(softmax, scores, visible, lag, scale, max, total, factors);
        if (dropout) {
          const counter = add(firstCounter(f, T, head, from), f.i32.shr(first, 2));
          dropScores(f, W, dropout, { scores, visible, counter, step: f.i32.divUp(T, 4) });
        }
        f.when(block, () => f.call(rescale, sum, rows, factors));
        f.loop(0, f.i32.divUp(width, ROWS), 1, (i) => {
          const into = at(sum, mul(i, ROWS * W)), base = f.i32.select(block, into, 0);
          f.call(multiply, at(values, mul(mul(i, n), ROWS)), scores, into, 4 * W, ROWS, W, visible, base, 4 * W);
        });
      });
    });

    const stats = add(mul(head, T), start);
    f.call(finish, maxima, totals, scale, at(of.max, stats), at(of.sum, stats), queries);
    f.loop(0, panels, 1, (panel) => {
      const left = mul(panel, W);
      f.call(transpose, at(sums, mul(rows, left)), 4 * W, width, W, turned);
      f.loop(0, min(sub(queries, left), W), 1, (i) => {
        const query = add(left, i), share = f.f32.loadAt(totals, query);
        f.call(write, at(turned, mul(i, W)), 4 * W * W, width, share, out.row(0, add(start, query)));
      });
    });
  });
}

/**
 * One panel: scores become exp(scale · (score − max)), 0 for keys behind their query, and their sums are added to totals.
 * `lag` is the number of keys before the first query; factors become what earlier sums are to be multiplied with.
 */
function defineSoftmax(f: WasmFunction, W: Columns) {
  const parameters = ["i32", "i32", "i32", "f32", "i32", "i32", "i32"] as const;
  return f.define("softmax", parameters, (f, scores, visible, lag, scale, maxima, totals, factors) => {
    const v = new Lanes(f, 8), groups = Array.from({ length: W / 8 }, (_, group) => 32 * group); // in bytes
    const scales = f.splat(scale), lowest = f.splat(-Infinity), open = f.i32.min(visible, f.i32.add(lag, 1));
    const max = groups.map(() => v.accumulator()), total = groups.map(() => v.accumulator());
    groups.forEach((group, g) => v.assign(max[g], v.loadFrom(maxima, group)));

    const row = f.i32.copy(scores);
    f.loop(0, open, 1, () => {
      groups.forEach((group, g) => v.assign(max[g], v.max(max[g], v.loadFrom(row, group))));
      f.i32.advance(row, 4 * W);
    });
    const lanes = groups.map((group) => v.fromI32(v.addI32(v.iota(), f.splatI32(group / 4))));
    f.loop(open, visible, 1, (key) => {
      const least = f.splat(f.f32.fromInt(f.i32.sub(key, lag))); // this key is seen from that query on
      const seen = groups.map((group, g) => v.select(v.ge(lanes[g], least), v.loadFrom(row, group), lowest));
      seen.forEach((x, g) => v.assign(max[g], v.max(max[g], x)));
      seen.forEach((x, g) => v.storeTo(row, groups[g], x));
      f.i32.advance(row, 4 * W);
    });

    const shifts = max.map((max) => v.neg(v.mul(max, scales)));
    const scaled = groups.map((group, g) => exp(f, v, v.madd(v.loadFrom(maxima, group), scales, shifts[g])));
    groups.forEach((group, g) => v.assign(total[g], v.mul(v.loadFrom(totals, group), scaled[g])));
    const from = f.i32.copy(scores);
    f.loop(0, visible, 1, () => {
      const exps = groups.map((group, g) => exp(f, v, v.madd(v.loadFrom(from, group), scales, shifts[g])));
      exps.forEach((e, g) => v.assign(total[g], v.add(total[g], e)));
      exps.forEach((e, g) => v.storeTo(from, groups[g], e));
      f.i32.advance(from, 4 * W);
    });
    groups.forEach((group, g) => {
      v.storeTo(factors, group, scaled[g]);
      v.storeTo(maxima, group, max[g]);
      v.storeTo(totals, group, total[g]);
    });
  });
}

/** A panel's rows times what belongs to each query. */
function defineRescale(f: WasmFunction, W: Columns) {
  return f.define("rescale", ["i32", "i32", "i32"], (f, sums, rows, factors) => {
    const v = new Lanes(f, 8);
    for (let group = 0; group < 4 * W; group += 32) {
      const factor = v.loadFrom(factors, group), row = f.i32.add(sums, group);
      f.loop(0, rows, 1, () => {
        v.storeTo(row, 0, v.mul(v.loadFrom(row, 0), factor));
        f.i32.advance(row, 4 * W);
      });
    }
  });
}

/** What backward needs, max being that of scale · score; and totals become their inverses. */
function defineFinish(f: WasmFunction) {
  const parameters = ["i32", "i32", "f32", "i32", "i32", "i32"] as const;
  return f.define("finish", parameters, (f, maxima, totals, scale, max, sum, queries) => {
    const scales = f.splat(scale), one = f.splat(1);
    f.forEach(0, queries, (at, v) => {
      const total = v.load(totals, at);
      v.store(max, at, v.mul(v.load(maxima, at), scales));
      v.store(sum, at, total);
      v.store(totals, at, v.div(one, total));
    });
  });
}

/**
 * Four words of a counter belong to four keys of a query, and a panel's lanes are queries: each word is a row. `counter` is
 * that of the first query and key, `step` how many a query has.
 */
function dropScores(
  f: WasmFunction,
  W: Columns,
  { draw, factor }: Dropped,
  { scores, visible, counter, step }: Locals<"scores" | "visible" | "counter" | "step">,
): void {
  const v = new Lanes(f, 8), steps = f.splatI32(step);
  for (let group = 0; group < W; group += 8) {
    const queries = v.mulI32(v.addI32(v.iota(), f.splatI32(group)), steps), row = f.i32.at(scores, group);
    f.loop(0, f.i32.add(visible, 3), 4, (key) => {
      const first = f.splatI32(f.i32.add(counter, f.i32.shr(key, 2)));
      draw(v, v.addI32(queries, first)).forEach((word, i) => {
        v.storeTo(row, 4 * W * i, v.mul(v.loadFrom(row, 4 * W * i), factor(v, word)));
      });
      f.i32.advance(row, 16 * W);
    });
  }
}
