/**
 * Attention's forward pass in WebAssembly; kernel.ts has the equations.
 *
 * A task computes CHUNK queries of a head, and takes a chunk of CHUNK keys at a time. Scores are stored transposed,
 * (keys, queries), one panel of queries at a time. So each lane computes the softmax of one query, and the result is
 * already packed for the product with V. A later chunk of keys may raise a query's maximum; the sums so far are then
 * scaled down (Milakov and Gimelshein 2018, arXiv:1805.02867).
 *
 * If a row holds several documents, a panel of queries starts at the first key of its first query's document. Keys
 * from before a query's own document get the score LOWEST, and are added to the query's sums at first. The first key of
 * the query's own document then raises the query's maximum, which scales these sums down to zero.
 */
import {
  type I32,
  type I32Local,
  Lanes,
  type Locals,
  type Vector,
  type WasmFunction,
} from "../../src/wasm/assembler.ts";
import { defineMultiply } from "../../src/wasm/gemm.ts";
import { exp } from "../../src/wasm/math.ts";
import { definePack } from "../../src/wasm/packing.ts";
import { defineFirstKeys, defineWriteRow, type Dropout, dropoutOf, type Dropped, firstCounter } from "./blocks.ts";
import { headOf, regions, roundUp, scaleOf, type Starts, tileOf } from "./blocks.ts";

/**
 * Queries of a task, and keys at a time: a multiple of W, the width of a panel of queries, and of the four elements of a
 * Philox counter.
 */
export const CHUNK = 256;

/**
 * The score of a key in another document. It is less than any other score. It is finite, because a panel may hold only
 * such keys for a query. It is a power of two, so that LOWEST − LOWEST stays zero when both are scaled.
 */
const LOWEST = -(2 ** 127);

type Sizes = "B" | "T" | "heads" | "width";
type Arguments = Locals<"qkv" | "y" | "statistics" | Sizes | "begin" | "end"> & Dropout & Starts;

export function attentionForward(f: WasmFunction, of: Arguments, native: boolean): void {
  const { qkv, y, T, heads, width, begin, end } = of, { add, sub, mul, div, min, max, lt, at } = f.i32;
  const { rows: R, columns: W } = tileOf(native); // panels of keys and of values have R rows, panels of queries W columns
  /**
   * Keys before the document of a panel's first query are skipped, in whole panels of R keys and whole dropout
   * counters.
   */
  const step = 2 * R;
  const packKeys = definePack(f, R, "k"), packValues = definePack(f, R, "panel");
  const transpose = definePack(f, W, "k"), multiply = defineMultiply(f, W), write = defineWriteRow(f, W);
  const softmax = defineSoftmax(f, W, of.starts !== undefined), rescale = defineRescale(f, W), finish = defineFinish(f);
  const dropout = dropoutOf(f, of), scale = scaleOf(f, width), rows = roundUp(f, width, R), take = regions(f);
  const keys = take(mul(width, CHUNK + R)), values = take(mul(rows, CHUNK)), query = take(mul(width, W));
  const scores = take((CHUNK + R) * W), sums = take(mul(rows, CHUNK)), turned = take(mul(roundUp(f, width, W), W));
  const maxima = take(CHUNK), totals = take(CHUNK), factors = take(W);
  const documents = of.starts && { starts: of.starts, describe: defineFirstKeys(f), firstKeys: take(CHUNK) };

  f.loop(begin, end, 1, (task) => {
    const chunks = f.i32.divUp(T, CHUNK), head = div(task, chunks), chunk = f.i32.rem(task, chunks);
    const packed = headOf(f, of, head, qkv, 3), out = headOf(f, of, head, y, 1);
    const start = mul(chunk, CHUNK), queries = min(sub(T, start), CHUNK), panels = f.i32.divUp(queries, W);
    const lowest = f.splat(documents ? LOWEST : -Infinity), zero = f.splat(0);
    f.forEach(0, CHUNK, (at, v) => {
      v.store(maxima, at, lowest);
      v.store(totals, at, zero);
    });
    const firstKeyOf = (query: I32) => f.i32.truncate(f.f32.loadAt(documents!.firstKeys, query));
    if (documents) {
      const own = at(documents.starts, add(mul(div(head, heads), T), start));
      f.call(documents.describe, own, start, queries, documents.firstKeys);
    }

    f.loop(documents ? div(firstKeyOf(0), CHUNK) : 0, add(chunk, 1), 1, (block) => {
      const first = mul(block, CHUNK), n = min(sub(T, first), CHUNK);
      f.call(packKeys, packed.row(1, first), packed.stride, n, width, keys);
      f.call(packValues, packed.row(2, first), packed.stride, width, n, values);
      f.loop(0, panels, 1, (panel) => {
        const left = mul(panel, W), from = add(start, left), lag = sub(from, first), visible = min(n, add(lag, W));
        /**
         * Processes the block's keys except the first `skip`. `later` is nonzero if the queries have seen a block
         * before.
         */
        const attend = (skip: I32, later: I32Local, masks: [firstKeys: I32, closed: I32, origin: I32]) => {
          const past = (pointer: I32Local, each: I32) => skip === 0 ? pointer : at(pointer, mul(skip, each));
          const [seen, behind] = [visible, lag].map((count) => skip === 0 ? count : sub(count, skip));
          const greatest = at(maxima, left), total = at(totals, left), sum = at(sums, mul(rows, left));
          f.call(transpose, packed.row(0, from), packed.stride, min(sub(T, from), W), width, query);
          f.call(multiply, past(keys, width), query, scores, 4 * W, roundUp(f, seen, R), W, width, 0, 0);
          f.call(softmax, scores, seen, behind, scale, greatest, total, factors, ...masks);
          if (dropout) {
            const counter = add(firstCounter(f, T, head, from), f.i32.shr(add(first, skip), 2));
            dropScores(f, W, dropout, { scores, visible: seen, counter, step: f.i32.divUp(T, 4) });
          }
          f.when(later, () => f.call(rescale, sum, rows, factors));
          f.loop(0, f.i32.divUp(width, R), 1, (i) => {
            const into = at(sum, mul(i, R * W)), base = f.i32.select(later, into, 0);
            const panel = past(at(values, mul(mul(i, n), R)), R);
            f.call(multiply, panel, scores, into, 4 * W, R, W, seen, base, 4 * W);
          });
        };
        if (!documents) return attend(0, block, [0, 0, 0]);
        const earliest = firstKeyOf(left), latest = firstKeyOf(sub(min(add(left, W), queries), 1));
        f.when(lt(earliest, add(first, n)), () => {
          const [skip, closed] = [earliest, latest].map((key) => sub(max(key, first), first));
          const whole = mul(div(skip, step), step), origin = add(first, whole);
          const masks = [at(documents.firstKeys, left), min(sub(closed, whole), sub(visible, whole)), origin] as const;
          attend(whole, lt(div(earliest, CHUNK), block), [...masks]);
        });
      });
    });

    const stats = at(of.statistics, add(mul(head, T), start)), queriesOfAll = mul(mul(of.B, heads), T);
    f.call(finish, maxima, totals, scale, stats, at(stats, queriesOfAll), queries);
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
 * Defines a function that computes the softmax of one panel of scores. A score becomes exp(scale · (score − max)), or 0
 * if the key is after the query, and the sums of these are added to totals. `lag` is the number of keys before the
 * first query. The function stores in `factors` by how much to scale earlier sums. With documents, the first `closed`
 * keys, from number `origin` on, may be before the document of some query.
 */
function defineSoftmax(f: WasmFunction, W: number, documents: boolean) {
  const parameters = ["i32", "i32", "i32", "f32", "i32", "i32", "i32", "i32", "i32", "i32"] as const;
  return f.define("softmax", parameters, (f, scores, visible, lag, scale, ...more) => {
    const [maxima, totals, factors, firstKeys, closed, origin] = more;
    const v = new Lanes(f, 8), groups = Array.from({ length: W / 8 }, (_, group) => 32 * group); // in bytes
    const scales = f.splat(scale), open = f.i32.min(visible, f.i32.add(lag, 1));
    const lowest = f.splat(documents ? LOWEST : -Infinity);
    const max = groups.map(() => v.accumulator()), total = groups.map(() => v.accumulator());
    groups.forEach((group, g) => v.assign(max[g], v.loadFrom(maxima, group)));

    const row = f.i32.copy(scores), lanes = groups.map((group) => v.fromI32(v.addI32(v.iota(), f.splatI32(group / 4))));
    const behind = (key: I32Local) => {
      const least = f.splat(f.f32.fromInt(f.i32.sub(key, lag))); // the first query that sees this key
      return groups.map((_, g) => v.ge(lanes[g], least));
    };
    const mask = (seen: Vector[]) => {
      const scores = groups.map((group, g) => v.select(seen[g], v.loadFrom(row, group), lowest));
      scores.forEach((x, g) => v.assign(max[g], v.max(max[g], x)));
      scores.forEach((x, g) => v.storeTo(row, groups[g], x));
      f.i32.advance(row, 4 * W);
    };
    const firsts = documents ? groups.map((group) => v.loadFrom(firstKeys, group)) : [];
    const own = documents
      ? f.loop(0, closed, 1, (key) => {
        const here = f.splat(f.f32.fromInt(f.i32.add(origin, key)));
        mask(behind(key).map((seen, g) => v.and(seen, v.le(firsts[g], here))));
      })
      : 0;
    const last = f.loop(own, open, 1, () => {
      groups.forEach((group, g) => v.assign(max[g], v.max(max[g], v.loadFrom(row, group))));
      f.i32.advance(row, 4 * W);
    });
    f.loop(last, visible, 1, (key) => mask(behind(key)));

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

/** Defines a function that multiplies each column of a panel by its query's factor. */
function defineRescale(f: WasmFunction, W: number) {
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

/**
 * Defines a function that stores the statistics for backward, which are the maximum of scale · score and the sum, and
 * replaces each total by 1 / total.
 */
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
 * Multiplies a panel of scores by dropout factors. The four words of a counter belong to four keys of one query, and a
 * panel's lanes are queries, so each word fills a row. `counter` is the counter of the first query and key, `step` the
 * number of counters per query.
 */
function dropScores(
  f: WasmFunction,
  W: number,
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
