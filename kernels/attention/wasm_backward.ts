/**
 * A task is a head, which takes CHUNK keys at a time and goes through the queries that see them in blocks of QUERIES. The
 * block's P and dS stand as panels of keys, packed for the products with dy and q that go to dv and dk; these grow in the
 * scratch, transposed, until the chunk has been seen by all. For dq, dS is packed once more.
 */
import { Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { type Columns, defineMultiply, ROWS, tileColumns } from "../../src/wasm/gemm.ts";
import { exp } from "../../src/wasm/math.ts";
import { definePack } from "../../src/wasm/packing.ts";
import { inElementOrder } from "../../src/wasm/philox.ts";
import { defineWriteRow, type Dropout, dropoutOf, type Dropped, firstCounter, headOf } from "./blocks.ts";
import { regions, roundUp, scaleOf } from "./blocks.ts";

/** Keys at a time: a multiple of every panel, and of the 32 elements for which Philox draws at once. */
const CHUNK = 256;
/** Queries at a time: whole tiles, and few, for all keys up to the last are computed for each. */
const QUERIES = 24;
/** What is known of a block's queries: −max, 1 / sum and D, QUERIES of each; the tile's rows are fewer than eight lanes. */
const VALUES = 3 * QUERIES;

type Tensors = "dy" | "qkv" | "y" | "max" | "sum" | "dqkv";
type Arguments = Locals<Tensors | "T" | "heads" | "width" | "begin" | "end"> & Dropout;

export function attentionBackward(f: WasmFunction, of: Arguments): void {
  const kernel = prepare(f, of);
  f.loop(of.begin, of.end, 1, (number) => {
    const packed = headOf(f, of, number, of.qkv, 3), gradient = headOf(f, of, number, of.dqkv, 3);
    const given = headOf(f, of, number, of.dy, 1), out = headOf(f, of, number, of.y, 1);
    f.loop(0, f.i32.divUp(of.T, CHUNK), 1, (chunk) => {
      keysChunk(f, { ...kernel, number, packed, gradient, given, out, chunk });
    });
  });
}

/** What all heads share: W, the columns of a panel, functions of the module, and regions of the scratch. */
function prepare(f: WasmFunction, of: Arguments) {
  const W = tileColumns(), { width } = of, { mul } = f.i32, scale = scaleOf(f, width), dropout = dropoutOf(f, of);
  const packRows = definePack(f, ROWS, "k"), turnRows = definePack(f, ROWS, "panel");
  const turnColumns = definePack(f, W, "k"), packColumns = definePack(f, W, "panel");
  const multiply = defineMultiply(f, W), write = defineWriteRow(f, W, of.dqkv.fresh);
  const describe = defineDescribe(f), differentiate = defineDifferentiate(f, W, dropout !== undefined);
  const rows = roundUp(f, width, ROWS), columns = roundUp(f, width, W), take = regions(f);
  const [keysTurned, valuesTurned, keys] = [0, 0, 0].map(() => take(mul(columns, CHUNK)));
  const [dkTurned, dvTurned] = [0, 0].map(() => take(mul(rows, CHUNK)));
  const [query, dout, output] = [0, 0, 0].map(() => take(mul(width, QUERIES)));
  const [queryTurned, doutTurned] = [0, 0].map(() => take(mul(rows, QUERIES)));
  const [P, dP, dS, factors] = [0, 0, 0, 0].map(() => take(CHUNK * QUERIES)), queryValues = take(VALUES + 8);
  const functions = { packRows, turnRows, turnColumns, packColumns, multiply, write, describe, differentiate };
  const ofKeys = { keysTurned, valuesTurned, keys, dkTurned, dvTurned };
  const ofQueries = { query, dout, output, queryTurned, doutTurned, P, dP, dS, factors, queryValues };
  return { ...of, W, rows, scale, dropout, ...functions, ...ofKeys, ...ofQueries };
}
type HeadRows = Record<"packed" | "gradient" | "given" | "out", ReturnType<typeof headOf>>;
type Head = ReturnType<typeof prepare> & HeadRows & Locals<"number" | "chunk">;

/** A chunk of a head's keys, and all queries that see one of them. */
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
    scores(f, queries);
    products(f, queries);
  });

  // The panels of keys are not needed any more: their place serves to turn dk and dv.
  [dkTurned, dvTurned].forEach((sums, i) => {
    f.call(turnColumns, sums, keysStride, width, n, keysTurned);
    f.loop(0, n, 1, (key) => {
      const into = at(keysTurned, mul(key, W));
      f.call(of.write, into, mul(n, 4 * W), width, 1, of.gradient.row(1 + i, add(first, key)));
    });
  });
}
type Queries = "from" | "count" | "lag" | "visible" | "panels" | "panelBytes";
type Block = Head & Locals<"first" | "n" | "keysStride" | Queries>;

/** P and dS of a block: each panel of keys with all the block's queries. */
function scores(f: WasmFunction, of: Block): void {
  const { width, W, from, count, packed, given, out, multiply, P, dP, factors } = of, { add, sub, mul, at } = f.i32;
  const { query, dout, output, queryValues } = of;
  f.call(of.packRows, packed.row(0, from), packed.stride, count, width, query);
  f.call(of.packRows, given.row(0, from), given.stride, count, width, dout);
  f.call(of.packRows, out.row(0, from), out.stride, count, width, output);
  f.call(of.turnRows, packed.row(0, from), packed.stride, width, count, of.queryTurned);
  f.call(of.turnRows, given.row(0, from), given.stride, width, count, of.doutTurned);
  const stats = add(mul(of.number, of.T), from);
  f.call(of.describe, dout, output, width, at(of.max, stats), at(of.sum, stats), count, queryValues);
  if (of.dropout) drawFactors(f, of, of.dropout);
  f.loop(0, of.panels, 1, (panel) => {
    const skip = mul(panel, of.panelBytes), left = mul(panel, W), packedAt = mul(left, width);
    f.call(multiply, query, at(of.keysTurned, packedAt), add(P, skip), 4 * W, count, W, width, 0, 0);
    f.call(multiply, dout, at(of.valuesTurned, packedAt), add(dP, skip), 4 * W, count, W, width, 0, 0);
    const block = [add(P, skip), add(dP, skip), add(factors, skip), queryValues] as const;
    f.call(of.differentiate, ...block, count, of.scale, sub(of.lag, left));
  });
}

/** dvᵀ += dyᵀ · P, dkᵀ += qᵀ · dS, and dq += dS · k. */
function products(f: WasmFunction, of: Block): void {
  const { width, W, n, from, count, visible, panels, multiply, dP, dS } = of, { add, sub, mul, min, at } = f.i32;
  const { dvTurned, dkTurned, keysStride, rows, gradient, chunk, packed: { stride } } = of, seen = mul(panels, W);
  f.call(multiply, of.doutTurned, of.P, dvTurned, keysStride, rows, seen, count, dvTurned, keysStride);
  f.call(multiply, of.queryTurned, dP, dkTurned, keysStride, rows, seen, count, dkTurned, keysStride);
  f.loop(0, panels, 1, (panel) => {
    const left = mul(panel, W), depth = min(sub(visible, left), W), source = add(dP, mul(panel, of.panelBytes));
    f.loop(0, f.i32.divUp(count, ROWS), 1, (i) => {
      const done = mul(i, ROWS), into = at(dS, add(mul(done, visible), mul(left, ROWS)));
      f.call(of.packRows, at(source, mul(done, W)), 4 * W, min(sub(count, done), ROWS), depth, into);
    });
  });
  f.loop(0, f.i32.divUp(width, W), 1, (panel) => {
    const left = mul(panel, W), into = at(gradient.row(0, from), left), wide = min(sub(width, left), W);
    const base = of.dqkv.fresh ? f.i32.select(chunk, into, 0) : into, baseStride = f.i32.select(base, stride, 0);
    f.call(multiply, dS, at(of.keys, mul(left, n)), into, stride, count, wide, visible, base, baseStride);
  });
}

/**
 * −max, 1 / sum and D of the block's queries. D adds up dy · y in the order in which the tile adds up dy · v: where nearly
 * all of P falls on one key the two cancel, and so do their roundings.
 */
function defineDescribe(f: WasmFunction) {
  const parameters = ["i32", "i32", "i32", "i32", "i32", "i32", "i32"] as const;
  return f.define("describe", parameters, (f, dout, output, width, max, sum, count, queryValues) => {
    const one = f.splat(1), eight = new Lanes(f, 8);
    f.forEach(0, count, (at, v) => {
      v.storeTo(f.i32.at(queryValues, at), 0, v.neg(v.load(max, at)));
      v.storeTo(f.i32.at(queryValues, at), 4 * QUERIES, v.div(one, v.load(sum, at)));
    });
    f.loop(0, f.i32.divUp(count, ROWS), 1, (panel) => {
      const total = eight.accumulator();
      f.loop(0, width, 1, () => {
        eight.assign(total, eight.madd(eight.loadFrom(dout, 0), eight.loadFrom(output, 0), total));
        for (const pointer of [dout, output]) f.i32.advance(pointer, 4 * ROWS);
      });
      eight.storeTo(f.i32.at(queryValues, f.i32.mul(panel, ROWS)), 8 * QUERIES, total);
    });
  });
}

/**
 * Of one panel of keys, scores become kept(P) and dP becomes dS. Key i of the panel is seen by query q where i ≤ lag + q;
 * `lag` may be negative.
 */
function defineDifferentiate(f: WasmFunction, W: Columns, drops: boolean) {
  const parameters = ["i32", "i32", "i32", "i32", "i32", "f32", "i32"] as const;
  return f.define("differentiate", parameters, (f, P, dP, factors, queryValues, count, scale, lag) => {
    const v = new Lanes(f, 8), groups = Array.from({ length: W / 8 }, (_, group) => 32 * group); // in bytes
    const scales = f.splat(scale), lanes = groups.map((group) => v.fromI32(v.addI32(v.iota(), f.splatI32(group / 4))));
    const rows = (masked: boolean) =>
      f.loop(0, count, 1, (i) => {
        const [shift, share, d] = [0, 1, 2].map((n) => v.loadSplat(queryValues, 4 * QUERIES * n));
        const last = masked ? f.splat(f.f32.fromInt(f.i32.add(lag, i))) : undefined;
        const scores = groups.map((group) => v.loadFrom(P, group)),
          given = groups.map((group) => v.loadFrom(dP, group));
        const kept = drops ? groups.map((group) => v.loadFrom(factors, group)) : undefined;
        const p = scores.map((score, g) => {
          const e = v.mul(exp(f, v, v.madd(score, scales, shift)), share);
          return last ? v.and(e, v.le(lanes[g], last)) : e;
        });
        const ds = given.map((dp, g) => v.mul(v.mul(p[g], scales), v.sub(kept ? v.mul(dp, kept[g]) : dp, d)));
        p.forEach((p, g) => v.storeTo(P, groups[g], kept ? v.mul(p, kept[g]) : p));
        ds.forEach((ds, g) => v.storeTo(dP, groups[g], ds));
        for (const pointer of [P, dP, factors]) f.i32.advance(pointer, 4 * W);
        f.i32.advance(queryValues, 4);
      });
    f.when(f.i32.ltSigned(lag, W - 1), () => void rows(true), () => void rows(false));
  });
}

/** A block's factors in panels of keys. */
function drawFactors(f: WasmFunction, of: Block, { draw, factor }: Dropped): void {
  const { T, W, factors, count } = of,
    counter = f.i32.add(firstCounter(f, T, of.number, of.from), f.i32.shr(of.first, 2));
  const step = f.i32.divUp(T, 4), v = new Lanes(f, 8), eight = v.iota(), panelFloats = f.i32.mul(count, W);
  f.loop(0, count, 1, (i) => {
    const row = f.i32.at(factors, f.i32.mul(i, W)), start = f.i32.add(counter, f.i32.mul(i, step));
    f.loop(0, f.i32.divUp(of.visible, 32), 1, (group) => {
      const words = draw(v, v.addI32(eight, f.splatI32(f.i32.add(start, f.i32.mul(group, 8)))));
      inElementOrder(v, words).forEach((word, part) => {
        const key = f.i32.add(f.i32.mul(group, 32), 8 * part), panel = f.i32.div(key, W);
        v.store(f.i32.at(row, f.i32.mul(panel, panelFloats)), f.i32.rem(key, W), factor(v, word));
      });
    });
  });
}
