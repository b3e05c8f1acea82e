/**
 * Attention's backward pass in WebAssembly; kernel.ts has the equations.
 *
 * A task is a head. It takes a chunk of CHUNK keys at a time, and goes through the queries that see them in blocks of
 * QUERIES. A block's P and dS are stored as panels of keys, packed for their products with dy and q, which are added to
 * dv and dk. dv and dk are accumulated in the scratch memory, transposed, until all queries have been through the
 * chunk. For dq, dS is packed again. If a row holds several documents, a block of queries starts at the panel of keys
 * in which the document of its first query begins, and skips chunks of keys that end before this document.
 */
import { type I32, type I32Local, Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { defineMultiply } from "../../src/wasm/gemm.ts";
import { exp } from "../../src/wasm/math.ts";
import { definePack } from "../../src/wasm/packing.ts";
import { inElementOrder } from "../../src/wasm/philox.ts";
import { defineFirstKeys, defineWriteRow, type Dropout, dropoutOf, type Dropped, firstCounter } from "./blocks.ts";
import { headOf, regions, roundUp, scaleOf, type Starts, tileOf } from "./blocks.ts";

/** Keys at a time: a multiple of every panel width, and of the 32 elements for which Philox draws at once. */
const CHUNK = 256;
/**
 * Queries at a time: a multiple of the rows of WebAssembly's tile, and few, because all keys up to the block's last
 * query are computed for each of its queries.
 */
const QUERIES = 24;
/** Number of floats in a block's statistics: −max, 1 / sum and D of each of its queries. */
const VALUES = 3 * QUERIES;

type Tensors = "dy" | "qkv" | "y" | "statistics" | "dqkv";
type Arguments = Locals<Tensors | "B" | "T" | "heads" | "width" | "begin" | "end"> & Dropout & Starts;

export function attentionBackward(f: WasmFunction, of: Arguments, native: boolean): void {
  const kernel = prepare(f, of, native);
  f.loop(of.begin, of.end, 1, (number) => {
    const packed = headOf(f, of, number, of.qkv, 3), gradient = headOf(f, of, number, of.dqkv, 3);
    const given = headOf(f, of, number, of.dy, 1), out = headOf(f, of, number, of.y, 1);
    f.loop(0, f.i32.divUp(of.T, CHUNK), 1, (chunk) => {
      keysChunk(f, { ...kernel, number, packed, gradient, given, out, chunk });
    });
  });
}

/** What all heads share: W (the columns of a panel), functions of the module, and regions of the scratch memory. */
function prepare(f: WasmFunction, of: Arguments, native: boolean) {
  const { rows: R, columns: W } = tileOf(native),
    { width } = of,
    { mul } = f.i32,
    scale = scaleOf(f, width),
    dropout = dropoutOf(f, of);
  const packRows = definePack(f, R, "k"), turnRows = definePack(f, R, "panel");
  const turnColumns = definePack(f, W, "k"), packColumns = definePack(f, W, "panel");
  const multiply = defineMultiply(f, W), write = defineWriteRow(f, W, of.dqkv.fresh);
  const describe = defineDescribe(f, R), options = { drops: dropout !== undefined, documents: of.starts !== undefined };
  const differentiate = defineDifferentiate(f, W, options);
  const rows = roundUp(f, width, R), columns = roundUp(f, width, W), take = regions(f);
  const [keysTurned, valuesTurned, keys] = [0, 0, 0].map(() => take(mul(columns, CHUNK)));
  const [dkTurned, dvTurned] = [0, 0].map(() => take(mul(rows, CHUNK)));
  const padded = Math.ceil(QUERIES / R) * R; // rounded up to whole panels of R rows
  const [query, dout, output] = [0, 0, 0].map(() => take(mul(width, padded)));
  const [queryTurned, doutTurned] = [0, 0].map(() => take(mul(rows, QUERIES)));
  const [P, dP, dS, factors] = [0, 0, 0, 0].map(() => take(CHUNK * padded)), queryValues = take(VALUES + 16);
  const documents = of.starts && { starts: of.starts, describe: defineFirstKeys(f), firstKeys: take(QUERIES) };
  const functions = { packRows, turnRows, turnColumns, packColumns, multiply, write, describe, differentiate };
  const ofKeys = { keysTurned, valuesTurned, keys, dkTurned, dvTurned };
  const ofQueries = { query, dout, output, queryTurned, doutTurned, P, dP, dS, factors, queryValues };
  return { ...of, R, W, rows, scale, dropout, documents, ...functions, ...ofKeys, ...ofQueries };
}
type HeadRows = Record<"packed" | "gradient" | "given" | "out", ReturnType<typeof headOf>>;
type Head = ReturnType<typeof prepare> & HeadRows & Locals<"number" | "chunk">;

/** Processes a chunk of a head's keys with all queries that see one of them. */
function keysChunk(f: WasmFunction, of: Head): void {
  const { T, width, W, packed, turnColumns, keysTurned, dkTurned, dvTurned } = of, { add, sub, mul, min, at } = f.i32;
  const first = mul(of.chunk, CHUNK), n = min(sub(T, first), CHUNK), allKeys = roundUp(f, n, W);
  const keysStride = mul(allKeys, 4), zero = f.splat(0);
  f.call(turnColumns, packed.row(1, first), packed.stride, n, width, keysTurned);
  f.call(turnColumns, packed.row(2, first), packed.stride, n, width, of.valuesTurned);
  f.call(of.packColumns, packed.row(1, first), packed.stride, width, n, of.keys);
  for (const sums of [dkTurned, dvTurned]) f.forEach(0, mul(of.rows, allKeys), (at, v) => v.store(sums, at, zero));

  f.loop(0, f.i32.divUp(sub(T, first), QUERIES), 1, (block) => {
    const from = add(first, mul(block, QUERIES)), count = min(sub(T, from), QUERIES), lag = sub(from, first);
    const visible = min(n, add(lag, count)), panels = f.i32.divUp(visible, W), panelBytes = mul(count, 4 * W);
    const queries = { ...of, first, n, keysStride, from, count, lag, visible, panels, panelBytes };
    const whole = (firstPanel: I32, latest: I32) => {
      scores(f, { ...queries, firstPanel, latest });
      products(f, { ...queries, firstPanel, latest });
    };
    if (!of.documents) return whole(0, 0);
    const { starts, describe, firstKeys } = of.documents;
    f.call(describe, at(starts, add(mul(f.i32.div(of.number, of.heads), T), from)), from, count, firstKeys);
    const [earliest, latest] = [0, sub(count, 1)].map((query) => f.i32.truncate(f.f32.loadAt(firstKeys, query)));
    const sees = () => whole(f.i32.div(sub(f.i32.max(earliest, first), first), W), latest);
    f.when(f.i32.lt(earliest, add(first, n)), sees, () => { // the first chunk has to initialize every dq
      if (!of.dqkv.fresh) return;
      const rows = f.i32.select(of.chunk, 0, count);
      f.loop(0, rows, 1, (i) => {
        const row = of.gradient.row(0, add(from, i));
        f.forEach(0, width, (at, v) => v.store(row, at, zero));
      });
    });
  });

  // The panels of keys are not needed any more, so their memory is used to transpose dk and dv.
  [dkTurned, dvTurned].forEach((sums, i) => {
    f.call(turnColumns, sums, keysStride, width, n, keysTurned);
    f.loop(0, n, 1, (key) => {
      const into = at(keysTurned, mul(key, W));
      f.call(of.write, into, mul(n, 4 * W), width, 1, of.gradient.row(1 + i, add(first, key)));
    });
  });
}
type Queries = "from" | "count" | "lag" | "visible" | "panels" | "panelBytes";
/** The number of the first panel of keys that the block of queries sees, and the first key that its last query sees. */
type Seen = Record<"firstPanel" | "latest", I32>;
type Block = Head & Locals<"first" | "n" | "keysStride" | Queries> & Seen;

/** Computes P and dS of a block, each panel of keys with all queries of the block. */
function scores(f: WasmFunction, of: Block): void {
  const { width, W, from, count, packed, given, out, multiply, P, dP, factors } = of, { add, sub, mul, at } = f.i32;
  const { query, dout, output, queryValues } = of;
  f.call(of.packRows, packed.row(0, from), packed.stride, count, width, query);
  f.call(of.packRows, given.row(0, from), given.stride, count, width, dout);
  f.call(of.packRows, out.row(0, from), out.stride, count, width, output);
  f.call(of.turnRows, packed.row(0, from), packed.stride, width, count, of.queryTurned);
  f.call(of.turnRows, given.row(0, from), given.stride, width, count, of.doutTurned);
  const stats = at(of.statistics, add(mul(of.number, of.T), from)), queriesOfAll = mul(mul(of.B, of.heads), of.T);
  f.call(of.describe, dout, output, width, stats, at(stats, queriesOfAll), count, queryValues);
  if (of.dropout) drawFactors(f, of, of.dropout);
  f.loop(of.firstPanel, of.panels, 1, (panel) => {
    const skip = mul(panel, of.panelBytes), left = mul(panel, W), packedAt = mul(left, width);
    f.call(multiply, query, at(of.keysTurned, packedAt), add(P, skip), 4 * W, count, W, width, 0, 0);
    f.call(multiply, dout, at(of.valuesTurned, packedAt), add(dP, skip), 4 * W, count, W, width, 0, 0);
    const block = [add(P, skip), add(dP, skip), add(factors, skip), queryValues] as const;
    const firstKeys = of.documents?.firstKeys ?? 0, origin = of.documents ? add(of.first, left) : 0;
    f.call(of.differentiate, ...block, count, of.scale, sub(of.lag, left), firstKeys, origin, of.latest);
  });
}

/** dvᵀ += dyᵀ · P, dkᵀ += qᵀ · dS, and dq += dS · k. */
function products(f: WasmFunction, of: Block): void {
  const { width, R, W, n, from, count, visible, panels, firstPanel, multiply, dP, dS } = of;
  const { add, sub, mul, min, at } = f.i32, { keysStride, rows, gradient, chunk, packed: { stride } } = of;
  const skipped = firstPanel === 0 ? 0 : mul(firstPanel, W), skippedBytes = skipped && mul(firstPanel, of.panelBytes);
  const past = (pointer: I32Local, keys: I32) => keys === 0 ? pointer : at(pointer, keys);
  const less = (count: I32Local, keys: I32) => keys === 0 ? count : sub(count, keys);
  const seen = less(mul(panels, W), skipped), depth = less(visible, skipped);
  for (const [rowsTurned, panel, sums] of [[of.doutTurned, of.P, of.dvTurned], [of.queryTurned, dP, of.dkTurned]]) {
    const into = past(sums, skipped), columns = skippedBytes === 0 ? panel : add(panel, skippedBytes);
    f.call(multiply, rowsTurned, columns, into, keysStride, rows, seen, count, into, keysStride);
  }
  f.loop(firstPanel, panels, 1, (panel) => {
    const left = mul(panel, W), wide = min(sub(visible, left), W), source = add(dP, mul(panel, of.panelBytes));
    f.loop(0, f.i32.divUp(count, R), 1, (i) => {
      const done = mul(i, R), into = at(dS, add(mul(done, depth), mul(less(left, skipped), R)));
      f.call(of.packRows, at(source, mul(done, W)), 4 * W, min(sub(count, done), R), wide, into);
    });
  });
  f.loop(0, f.i32.divUp(width, W), 1, (panel) => {
    const left = mul(panel, W), into = at(gradient.row(0, from), left), wide = min(sub(width, left), W);
    const base = of.dqkv.fresh ? f.i32.select(chunk, into, 0) : into, baseStride = f.i32.select(base, stride, 0);
    const keys = past(at(of.keys, mul(left, n)), skipped && mul(skipped, W));
    f.call(multiply, dS, keys, into, stride, count, wide, depth, base, baseStride);
  });
}

/**
 * Defines a function that stores −max, 1 / sum and D of the block's queries. D adds up dy · y in the order in which the
 * tile adds up dy · v: if nearly all of P falls on one key, the two cancel, and their rounding errors with them.
 */
function defineDescribe(f: WasmFunction, R: number) {
  const parameters = ["i32", "i32", "i32", "i32", "i32", "i32", "i32"] as const;
  return f.define("describe", parameters, (f, dout, output, width, max, sum, count, queryValues) => {
    const one = f.splat(1), eight = new Lanes(f, 8);
    f.forEach(0, count, (at, v) => {
      v.storeTo(f.i32.at(queryValues, at), 0, v.neg(v.load(max, at)));
      v.storeTo(f.i32.at(queryValues, at), 4 * QUERIES, v.div(one, v.load(sum, at)));
    });
    f.loop(0, f.i32.divUp(count, R), 1, (panel) => {
      const totals = Array.from({ length: Math.ceil(R / 8) }, () => eight.accumulator()); // last lanes may be padding
      f.loop(0, width, 1, () => {
        totals.forEach((total, i) => {
          eight.assign(total, eight.madd(eight.loadFrom(dout, 32 * i), eight.loadFrom(output, 32 * i), total));
        });
        for (const pointer of [dout, output]) f.i32.advance(pointer, 4 * R);
      });
      const into = f.i32.at(queryValues, f.i32.mul(panel, R));
      totals.forEach((total, i) => eight.storeTo(into, 8 * QUERIES + 32 * i, total));
    });
  });
}

/**
 * Defines a function that turns a panel of scores into dropout(P), and the panel of dP into dS. Query q sees key i of
 * the panel if i ≤ lag + q; `lag` may be negative. With documents, `origin` is the number of the panel's first key, and
 * `latest` is the first key that the last query sees.
 */
function defineDifferentiate(
  f: WasmFunction,
  W: number,
  { drops, documents }: Record<"drops" | "documents", boolean>,
) {
  const parameters = ["i32", "i32", "i32", "i32", "i32", "f32", "i32", "i32", "i32", "i32"] as const;
  return f.define("differentiate", parameters, (f, P, dP, factors, queryValues, count, scale, ...masks) => {
    const [lag, firstKeys, origin, latest] = masks;
    const v = new Lanes(f, 8), groups = Array.from({ length: W / 8 }, (_, group) => 32 * group); // in bytes
    const scales = f.splat(scale), lanes = groups.map((group) => v.fromI32(v.addI32(v.iota(), f.splatI32(group / 4))));
    const start = documents ? f.splat(f.f32.fromInt(origin)) : undefined;
    const keys = start && lanes.map((lane) => v.add(lane, start));
    const rows = (masked: boolean) =>
      f.loop(0, count, 1, (i) => {
        const [shift, share, d] = [0, 1, 2].map((n) => v.loadSplat(queryValues, 4 * QUERIES * n));
        const last = masked ? f.splat(f.f32.fromInt(f.i32.add(lag, i))) : undefined;
        const first = keys && masked ? v.loadSplat(firstKeys, 0) : undefined;
        const scores = groups.map((group) => v.loadFrom(P, group)),
          given = groups.map((group) => v.loadFrom(dP, group));
        const kept = drops ? groups.map((group) => v.loadFrom(factors, group)) : undefined;
        const p = scores.map((score, g) => {
          const e = v.mul(exp(f, v, v.madd(score, scales, shift)), share);
          const seen = last ? v.and(e, v.le(lanes[g], last)) : e;
          return first ? v.and(seen, v.ge(keys![g], first)) : seen;
        });
        const ds = given.map((dp, g) => v.mul(v.mul(p[g], scales), v.sub(kept ? v.mul(dp, kept[g]) : dp, d)));
        p.forEach((p, g) => v.storeTo(P, groups[g], kept ? v.mul(p, kept[g]) : p));
        ds.forEach((ds, g) => v.storeTo(dP, groups[g], ds));
        for (const pointer of [P, dP, factors]) f.i32.advance(pointer, 4 * W);
        for (const pointer of documents ? [queryValues, firstKeys] : [queryValues]) f.i32.advance(pointer, 4);
      });
    const crossed = f.i32.ltSigned(lag, W - 1);
    const condition = documents ? f.i32.or(crossed, f.i32.lt(origin, latest)) : crossed;
    f.when(condition, () => void rows(true), () => void rows(false));
  });
}

/** Draws a block's dropout factors, stored in panels of keys. */
function drawFactors(f: WasmFunction, of: Block, { draw, factor }: Dropped): void {
  const { T, W, factors, count } = of,
    counter = f.i32.add(firstCounter(f, T, of.number, of.from), f.i32.shr(of.first, 2));
  const step = f.i32.divUp(T, 4), v = new Lanes(f, 8), eight = v.iota(), panelFloats = f.i32.mul(count, W);
  f.loop(0, count, 1, (i) => {
    const row = f.i32.at(factors, f.i32.mul(i, W)), start = f.i32.add(counter, f.i32.mul(i, step));
    const skipped = of.firstPanel === 0 ? 0 : f.i32.shr(f.i32.mul(of.firstPanel, W), 5);
    f.loop(skipped, f.i32.divUp(of.visible, 32), 1, (group) => {
      const words = draw(v, v.addI32(eight, f.splatI32(f.i32.add(start, f.i32.mul(group, 8)))));
      inElementOrder(v, words).forEach((word, part) => {
        const key = f.i32.add(f.i32.mul(group, 32), 8 * part), panel = f.i32.div(key, W);
        v.store(f.i32.at(row, f.i32.mul(panel, panelFloats)), f.i32.rem(key, W), factor(v, word));
      });
    });
  });
}
