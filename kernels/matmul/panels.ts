/**
 * Products with a matrix in panels, c = a · bᵀ, for an a with few rows, as in generation, when most of the time goes
 * into reading b.
 *
 * A task is {@linkcode STREAMS} panels that are far apart in memory. They are read as that number of long sequential
 * streams, which the processor prefetches; reading one panel at a time is only two thirds as fast. The first row or two
 * of a are multiplied with all these panels at once, which brings the panels into the cache for the remaining rows,
 * taken six at a time. Nothing is packed: rows of a are few enough to be read in place. Every element adds its products
 * in the order of gemm.ts, so a row's result does not depend, to the bit, on the other rows.
 */
import { type I32, type I32Local, Lanes, type Vector, type WasmFunction } from "../../src/wasm/assembler.ts";
import { KC, tileColumns } from "../../src/wasm/gemm.ts";
import { bytesInPanels, defineWiden, loadQ8, Q8_0, q8Scales } from "../../src/wasm/packing.ts";
import type { Phase } from "./wasm.ts";

/** Panels of a task. More are slower: their sums would leave no registers for converting bf16. */
const STREAMS = 3;
/** Rows of a in a task. Together with their sums and a block of the panels, they fit into a second-level cache. */
const MOST_ROWS = 48;

/**
 * The phase that multiplies by panels.
 *
 * @param alone whether a has only one row
 */
export function byPanels(alone: boolean): Phase {
  return {
    // An even number of parts of N, so that two threads share evenly.
    tasks: ({ M, N }) => 2 * Math.ceil(N / tileColumns() / STREAMS / 2) * Math.ceil(M / MOST_ROWS),
    emit(f, { a, b, bias, c, M, N, K, begin, end }) {
      const { add, sub, mul, min, at, div, rem, divUp } = f.i32, width = tileColumns(), sums = f.scratch(0);
      const panels = divUp(N, width), groups = mul(divUp(panels, 2 * STREAMS), 2), parts = divUp(M, MOST_ROWS);
      const bytes = bytesInPanels(f, b, mul(K, width)), bStride = mul(bytes, groups), aStride = mul(K, 4);
      const addUp = b.q8 && alone ? ofQ8Row(f) : ofRows(f, b, alone);
      f.loop(begin, end, 1, (task) => {
        const group = div(task, parts),
          count = divUp(sub(panels, group), groups),
          first = mul(rem(task, parts), MOST_ROWS);
        const rows = min(sub(M, first), MOST_ROWS), aFirst = at(a, mul(first, K)), bFirst = add(b, mul(group, bytes));
        f.loop(0, divUp(K, KC), 1, (block) => {
          const k = mul(block, KC), steps = min(sub(K, k), KC), right = add(bFirst, bytesInPanels(f, b, mul(k, width)));
          addUp({ a: at(aFirst, k), aStride, rows, b: right, bStride, count, sums, steps });
          f.loop(0, count, 1, (panel) => {
            const column = mul(add(group, mul(panel, groups)), width), columns = min(sub(N, column), width);
            f.loop(0, rows, 1, (row) => {
              const sum = add(sums, mul(add(mul(panel, MOST_ROWS), row), 4 * width));
              const place = at(c, add(mul(add(first, row), N), column));
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
 * Multiplies `rows` rows of a, at most {@linkcode MOST_ROWS}, with `count` panels, over a block of K. The sums are
 * stored as [panel][row][column].
 */
type AddUp = (of: Record<"a" | "aStride" | "rows" | "b" | "bStride" | "count" | "sums" | "steps", I32Local>) => void;

/** Multiplies in tiles: first one or two rows with all panels, then up to six rows with one panel at a time. */
function ofRows(f: WasmFunction, { bf16, q8 }: I32Local, alone: boolean): AddUp {
  const { add, mul, min } = f.i32, width = tileColumns(), heights = alone ? [1] : [6, 4, 2, 1];
  const words = bf16 && width === 16 && alone;
  const tiles = heights.map((rows) => {
    const most = rows < 3 ? STREAMS : 1; // fewer for the last panels
    return Array.from(
      { length: most },
      (_, i) => {
        const unrolled = i === 0 && (rows < 3 || rows === 6); // remaining rows and panels get smaller code
        return { of: most - i, tile: defineTile(f, { rows, panels: most - i, bf16, words, unrolled }) };
      },
    );
  });
  const inOrder = words ? defineInOrder(f) : undefined;
  const widen = q8 ? defineWiden(f, width) : undefined, widened = f.scratch(4 * width * STREAMS * MOST_ROWS);
  return ({ a, aStride, rows, b, bStride, count, sums, steps }) => {
    if (widen) { // block by block, so that all panels are read as streams
      f.loop(0, steps, Q8_0.block, (step) =>
        f.loop(0, count, 1, (panel) => {
          const to = add(widened, mul(add(mul(panel, KC), step), 4 * width));
          f.call(widen, add(b, mul(panel, bStride)), step, Q8_0.block, to);
        }));
    }
    const [from, apart] = widen ? [widened, 4 * width * KC] : [b, bStride];
    const through = (height: number, row: I32, to: I32) =>
      f.loop(row, to, height, (row) => {
        let panel: I32 = 0;
        for (const { of, tile } of tiles[heights.indexOf(height)]) {
          panel = f.loop(panel, count, of, (panel) => {
            const into = add(sums, mul(add(mul(panel, MOST_ROWS), row), 4 * width));
            f.call(tile, add(a, mul(row, aStride)), aStride, add(from, mul(panel, apart)), apart, into, steps);
          });
        }
      });
    const first = Math.min(2, heights[0]);
    let row = through(first, 0, min(rows, first));
    for (const height of heights) row = through(height, row, rows);
    if (inOrder) f.call(inOrder, sums, count);
  };
}

/** Bytes between the sums of one panel and of the next. */
const sumsStride = (): number => 4 * tileColumns() * MOST_ROWS;
/** `count` addresses, `stride` bytes apart. */
const along = (f: WasmFunction, first: I32Local, stride: I32, count: number): I32Local[] =>
  Array.from({ length: count }, (_, i) => f.i32.add(first, f.i32.mul(stride, i)));

interface Tile {
  readonly rows: number;
  readonly panels: number;
  readonly bf16: boolean;
  /**
   * Whether bf16 are loaded as words of two columns each, which halves the number of load instructions. The sums are
   * then sums of the even columns and sums of the odd columns.
   */
  readonly words: boolean;
  readonly unrolled: boolean;
}

/**
 * Defines the product of `rows` rows of a and `panels` panels of b. Parameters: a, bytes between its rows; b, bytes
 * between its panels; sums; steps of K.
 */
function defineTile(f: WasmFunction, { rows, panels, bf16, words, unrolled }: Tile) {
  const width = tileColumns(), halves = Array.from({ length: width / 8 }, (_, i) => i);
  return f.define("panels", ["i32", "i32", "i32", "i32", "i32", "i32"], (f, a, aStride, b, bStride, sums, K) => {
    const v = new Lanes(f, 8), unroll = unrolled ? 64 / width : 1; // less code to compile for rare tiles
    const left = along(f, a, aStride, rows), right = along(f, b, bStride, panels), bytes = bf16 ? 2 : 4;
    for (const panel of right) panel.bf16 = bf16 && !words;
    const into = right.map(() => left.map(() => halves.map(() => v.accumulator())));
    const steps = (count: number) => () => {
      for (let u = 0; u < count; u++) {
        const element = (m: number) => v.loadSplat(left[m], 4 * u);
        const weights = (p: number): (() => Vector)[] => {
          const load = (h: number) => v.loadFrom(right[p], bytes * (u * width + 8 * h));
          if (!words) return halves.map((h) => () => load(h));
          const pairs = load(0);
          return [() => v.shl(pairs, 16), () => v.and(pairs, v.splatI32(-65536))];
        };
        const madd = (p: number, m: number, h: number, x: Vector, w: Vector) =>
          v.assign(into[p][m][h], v.madd(x, w, into[p][m][h]));
        // One or two rows: the elements of a stay in registers while all panels are read. More rows: the weights of one
        // panel stay in registers while all rows are read.
        const held = rows < 3 ? left.map((_, m) => element(m)) : [];
        right.forEach((_, p) => {
          if (rows < 3) {
            weights(p).forEach((load, h) => {
              const w = load();
              held.forEach((x, m) => madd(p, m, h, x, w));
            });
          } else {
            const all = weights(p).map((load) => load());
            left.forEach((_, m) => {
              const x = element(m);
              all.forEach((w, h) => madd(p, m, h, x, w));
            });
          }
        });
      }
      for (const row of left) f.i32.advance(row, 4 * count);
      for (const panel of right) f.i32.advance(panel, bytes * width * count);
    };
    f.loop(f.loop(0, K, unroll, steps(unroll)), K, 1, steps(1));
    into.forEach((of, p) =>
      of.forEach((row, m) => row.forEach((sum, h) => v.storeTo(sums, p * sumsStride() + 4 * (m * width + 8 * h), sum)))
    );
  });
}

/**
 * Defines a function that interleaves the sums of a row's even columns with the sums of its odd columns, which follow.
 * It is a function of its own because otherwise V8 would not pair the vectors of the tile.
 */
function defineInOrder(f: WasmFunction) {
  return f.define("in_order", ["i32", "i32"], (f, sums, panels) => {
    const v = new Lanes(f, 8), place = f.i32.copy(sums);
    f.loop(0, panels, 1, () => {
      const [even, odd] = [0, 32].map((bytes) => v.loadFrom(place, bytes));
      const [first, second] = ([[0, 4, 1, 5], [2, 6, 3, 7]] as const).map((lanes) => v.shuffle(even, odd, lanes));
      [0, 1].forEach((half) => v.storeTo(place, 32 * half, [first[half], second[half]]));
      f.i32.advance(place, sumsStride());
    });
  });
}

/**
 * Multiplies one row of a with panels of q8_0 as they are stored. It reads the first block of every panel, then the
 * second block of every panel, and so on. The scales fill the registers, so the sums are in memory between blocks.
 */
function ofQ8Row(f: WasmFunction): AddUp {
  const width = tileColumns(), unroll = 4, halves = Array.from({ length: width / 8 }, (_, i) => i);
  const parameters = ["i32", "i32", "i32", "i32", "i32", "i32"] as const;
  const tile = f.define("panels_q8", parameters, (f, a, b, bStride, count, sums, K) => {
    const { add, mul, at } = f.i32, v = new Lanes(f, 8), zero = f.splat(0), first = f.i32.copy(b);
    f.loop(0, count, 1, (panel) => {
      const place = add(sums, mul(panel, sumsStride()));
      for (const h of halves) v.storeTo(place, 32 * h, zero);
    });
    f.loop(0, K, Q8_0.block, (k) => {
      const some = (together: number) => (panel: I32Local) => {
        const blocks = along(f, add(first, mul(panel, bStride)), bStride, together), x = at(a, k);
        const place = add(sums, mul(panel, sumsStride())), offset = (p: number, h: number) => p * sumsStride() + 32 * h;
        const into = blocks.map(() => halves.map(() => v.accumulator()));
        into.forEach((of, p) => of.forEach((sum, h) => v.assign(sum, v.loadFrom(place, offset(p, h)))));
        const scales = blocks.map((block) => q8Scales(v, block, width)), pairs = blocks.map((at) => add(at, 2 * width));
        f.loop(0, Q8_0.block, 2 * unroll, () => {
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
        into.forEach((of, p) => of.forEach((sum, h) => v.storeTo(place, offset(p, h), sum)));
      };
      f.loop(f.loop(0, count, 3, some(3)), count, 1, some(1));
      f.i32.advance(first, Q8_0.bytes * width);
    });
  });
  return ({ a, b, bStride, count, sums, steps }) => f.call(tile, a, b, bStride, count, sums, steps);
}
