/**
 * Products with a matrix in panels: c = a · bᵀ, where for the few rows of generated texts reading b takes the time.
 *
 * A task is {@linkcode STREAMS} panels which lie far apart: as many long lines through the memory, of which the processor fetches
 * each ahead; one at a time is two thirds as fast. The first rows of a, one or two, go through several panels at once, which
 * they bring into the cache for the other rows, six at a time. Nothing is packed: rows of a are few enough to be read in place.
 * Every element adds its products in the order of gemm.ts, so that a row has the same bits beside any others.
 */
import { type I32, type I32Local, Lanes, type Vector, type WasmFunction } from "../../src/wasm/assembler.ts";
import { KC, tileColumns } from "../../src/wasm/gemm.ts";
import { bytesInPanels, defineWiden, loadQ8, Q8, q8Scales } from "../../src/wasm/packing.ts";
import type { Phase } from "./wasm.ts";

const STREAMS = 6;
/** Rows of a that a task goes through: with their sums, and a block of the panels, they fit into a second-level cache. */
const MOST_ROWS = 48;

/** @param alone whether a has one row */
export function byPanels(alone: boolean): Phase {
  return {
    tasks: ({ M, N }) => Math.ceil(N / tileColumns() / STREAMS) * Math.ceil(M / MOST_ROWS),
    emit(f, { a, b, bias, c, M: allRows, N, K, begin, end }) {
      const { add, sub, mul, min, at, div, rem, divUp } = f.i32, width = tileColumns();
      const panels = divUp(N, width), groups = divUp(panels, STREAMS), all = bytesInPanels(f, b, mul(K, width));
      const apart = mul(all, groups);
      const sums = f.scratch(0),
        ofPanel = 4 * width * MOST_ROWS,
        rowBytes = mul(K, 4),
        parts = divUp(allRows, MOST_ROWS);
      const widen = b.q8 && !alone ? defineWiden(f, width) : undefined,
        widened = f.scratch(STREAMS * 4 * width * MOST_ROWS);
      const heights = alone ? [1] : [6, 5, 4, 3, 2, 1];
      // For each height of a tile, those over as many panels as the registers hold sums for, and over fewer.
      const q8 = b.q8 && alone ? defineQ8Tile(f) : undefined;
      const tiles = new Map(heights.map((rows) => {
        const most = rows < 3 ? STREAMS / rows : 1, counts = Array.from({ length: most }, (_, i) => most - i);
        return [rows, counts.map((panels) => defineTile(f, { rows, panels, bf16: b.bf16 }))];
      }));
      f.loop(begin, end, 1, (task) => {
        const group = div(task, parts), count = divUp(sub(panels, group), groups);
        const firstRow = mul(rem(task, parts), MOST_ROWS), M = min(sub(allRows, firstRow), MOST_ROWS);
        const first = add(b, mul(group, all)), aFirst = at(a, mul(firstRow, K));
        f.loop(0, divUp(K, KC), 1, (block) => {
          const k = mul(block, KC), steps = min(sub(K, k), KC), part = add(first, bytesInPanels(f, b, mul(k, width)));
          if (widen) {
            f.loop(
              0,
              steps,
              Q8.numbers,
              (step) =>
                f.loop(0, count, 1, (panel) =>
                  f.call(
                    widen,
                    add(part, mul(panel, apart)),
                    step,
                    Q8.numbers,
                    add(widened, mul(add(mul(panel, KC), step), 4 * width)),
                  )),
            );
          }
          const [there, next] = widen ? [widened, 4 * width * KC] : [part, apart];
          const through = (rows: number, from: I32, to: I32) =>
            f.loop(from, to, rows, (row) => {
              const left = at(aFirst, add(mul(row, K), k)), into = add(sums, mul(row, 4 * width));
              let panel: I32 = 0;
              tiles.get(rows)!.forEach((tile, i, { length }) => {
                panel = f.loop(panel, count, length - i, (panel) => {
                  const right = add(there, mul(panel, next)), sum = add(into, mul(panel, ofPanel));
                  f.call(tile, left, rowBytes, right, next, sum, ofPanel, steps);
                });
              });
            });
          if (q8) f.call(q8, at(aFirst, k), count, part, apart, sums, ofPanel, steps);
          else {
            let row = through(alone ? 1 : 2, 0, alone ? 1 : 2);
            if (!alone) { for (const rows of heights) row = through(rows, row, M); }
          }
          f.loop(0, count, 1, (panel) => {
            const column = mul(add(group, mul(panel, groups)), width), columns = min(sub(N, column), width);
            f.loop(0, M, 1, (row) => {
              const sum = add(sums, add(mul(panel, ofPanel), mul(row, 4 * width)));
              const place = at(c, add(mul(add(firstRow, row), N), column));
              const finish = (base?: I32Local) => () =>
                f.forEach(0, columns, (n, v) => {
                  v.store(place, n, base ? v.add(v.load(base, n), v.load(sum, n)) : v.load(sum, n));
                });
              f.when(block, finish(place), finish(bias ? at(bias, column) : c.fresh ? undefined : place));
            });
          });
        });
      });
    },
  };
}

/**
 * `rows` rows of a by `panels` panels of b: a, bytes from row to row; b, bytes from panel to panel; where the sums go, panel by
 * panel, and bytes from one's to the next's; steps of K.
 */
function defineTile(f: WasmFunction, { rows, panels, bf16 }: { rows: number; panels: number; bf16: boolean }) {
  const width = tileColumns();
  return f.define("panels", tileParameters, (f, a, aStride, b, bStride, sums, sumsStride, K) => {
    const v = new Lanes(f, 8), unroll = 64 / width;
    const rowsOfA = along(f, a, aStride, rows), panelsOfB = along(f, b, bStride, panels);
    for (const panel of panelsOfB) panel.bf16 = bf16;
    const into = panelsOfB.map(() => rowsOfA.map(() => Array.from({ length: width / 8 }, () => v.accumulator())));
    const steps = (count: number) => () => {
      for (let u = 0; u < count; u++) {
        // What stays in registers is a row's element where few rows go through many panels, else a panel's row.
        const element = (m: number) => v.loadSplat(rowsOfA[m], 4 * u), few = rows < 3;
        const held = few ? rowsOfA.map((_, m) => element(m)) : [];
        panelsOfB.forEach((panel, p) => {
          const weights = (h: number) => v.loadFrom(panel, panel.bytes * (u * width + 8 * h));
          const all = few ? [] : into[p][0].map((_, h) => weights(h));
          const madd = (m: number, h: number, x: Vector, w: Vector) =>
            v.assign(into[p][m][h], v.madd(x, w, into[p][m][h]));
          if (few) {
            into[p][0].forEach((_, h) => {
              const w = weights(h);
              held.forEach((x, m) => madd(m, h, x, w));
            });
          } else {
            rowsOfA.forEach((_, m) => {
              const x = element(m);
              all.forEach((w, h) => madd(m, h, x, w));
            });
          }
        });
      }
      for (const row of rowsOfA) f.i32.advance(row, 4 * count);
      for (const panel of panelsOfB) f.i32.advance(panel, panel.bytes * width * count);
    };
    f.loop(f.loop(0, K, unroll, steps(unroll)), K, 1, steps(1));
    along(f, sums, sumsStride, panels).forEach((place, p) =>
      into[p].forEach((row, m) => row.forEach((sum, h) => v.storeTo(place, 4 * (m * width + 8 * h), sum)))
    );
  });
}

/**
 * One row of a by panels of q8_0: a, how many panels, b and so on; K is a multiple of 32. It goes through a block of three panels,
 * then of the other three, so that all are streams, and the sums stand in memory in between.
 */
function defineQ8Tile(f: WasmFunction): ReturnType<typeof defineTile> {
  const width = tileColumns(), unroll = 4, halves = Array.from({ length: width / 8 }, (_, i) => i);
  return f.define("panels_q8", tileParameters, (f, a, count, b, bStride, sums, sumsStride, K) => {
    const { add, mul, at } = f.i32, v = new Lanes(f, 8), zero = f.splat(0), first = f.i32.copy(b);
    f.loop(0, count, 1, (panel) => {
      const place = add(sums, mul(panel, sumsStride));
      halves.forEach((h) => v.storeTo(place, 32 * h, zero));
    });
    f.loop(0, K, Q8.numbers, (k) => {
      const some = (together: number) => (panel: I32Local) => {
        const blocks = along(f, add(first, mul(panel, bStride)), bStride, together);
        const places = along(f, add(sums, mul(panel, sumsStride)), sumsStride, together);
        const into = places.map(() => halves.map(() => v.accumulator())), x = at(a, k);
        into.forEach((of, p) => of.forEach((sum, h) => v.assign(sum, v.loadFrom(places[p], 32 * h))));
        const scales = blocks.map((block) => q8Scales(v, block, width)), pairs = blocks.map((at) => add(at, 2 * width));
        f.loop(0, Q8.numbers, 2 * unroll, () => {
          for (let u = 0; u < unroll; u++) {
            const elements = [0, 1].map((odd) => v.loadSplat(x, 4 * (2 * u + odd)));
            into.forEach((of, p) =>
              loadQ8(v, pairs[p], 2 * width * u, scales[p]).forEach((weights, odd) =>
                weights.forEach((w, h) => v.assign(of[h], v.madd(elements[odd], w, of[h])))
              )
            );
          }
          f.i32.advance(x, 8 * unroll);
          for (const pair of pairs) f.i32.advance(pair, 2 * width * unroll);
        });
        places.forEach((place, p) => into[p].forEach((sum, h) => v.storeTo(place, 32 * h, sum)));
      };
      f.loop(f.loop(0, count, 3, some(3)), count, 1, some(1));
      f.i32.advance(first, Q8.bytes * width);
    });
  });
}

const tileParameters = ["i32", "i32", "i32", "i32", "i32", "i32", "i32"] as const;
/** `count` addresses, `stride` bytes apart. */
const along = (f: WasmFunction, first: I32Local, stride: I32Local, count: number): I32Local[] =>
  Array.from({ length: count }, (_, i) => f.i32.add(first, f.i32.mul(stride, i)));
