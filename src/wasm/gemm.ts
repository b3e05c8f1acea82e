/**
 * Matrix products inside a kernel: C = base + A · B over packed panels (packing.ts), one register tile at a time, after
 * Goto and van de Geijn 2008 (Anatomy of High-Performance Matrix Multiplication).
 *
 * Every element of C adds its K products one after another with fused multiply-adds, starting from zero, and then adds
 * `base`. So an element's bits depend neither on the tile's width nor on the element's place in the tile. If K is above
 * {@linkcode KC}, the caller divides K into blocks and multiplies one block after another, with `base` = C. The blocks
 * determine the order of additions, so each block except the last must have KC steps.
 *
 * ```ts ignore
 * const packA = definePack(f, ROWS, "k"), packB = definePack(f, tileColumns(), "panel"); // row-major A and B
 * const multiply = defineMultiply(f);
 * f.call(packA, a, f.i32.shl(K, 2), M, K, aPacked);
 * f.call(packB, b, f.i32.shl(N, 2), N, K, bPacked);
 * f.call(multiply, aPacked, bPacked, c, f.i32.shl(N, 2), M, N, K, 0, 0);
 * ```
 */
import { type Callee, Lanes, RESERVED_SCRATCH, WasmFunction } from "./assembler.ts";

/** Rows of a tile: the width of A's panels. */
export const ROWS = 6;
/**
 * Columns of the tile, which is the width of B's panels. Eight columns fill the 16 vector registers of x86-64 if V8
 * uses them as 128-bit registers; 16 columns fill them if V8 pairs vectors into 256-bit registers.
 */
export type Columns = 8 | 16;
/**
 * The size of the machine code's tile (src/native/), and the offset in a thread's scratch memory at which the machine
 * code reads {@linkcode Multiply}'s arguments.
 */
export const NATIVE = { rows: 14, columns: 32, argumentsAt: RESERVED_SCRATCH - 512 } as const;
/** Most steps of K in one block: few enough for a panel of B to stay in the first-level cache. */
export const KC = 384;

const multiplyParameters = ["i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32", "i32"] as const;
/**
 * The function that multiplies. Arguments: a and b (packed); c and the stride in bytes of its rows; rows, columns, K;
 * base (0 for none) and the stride in bytes of its rows.
 */
export type Multiply = Callee<typeof multiplyParameters>;

/**
 * Offset of the place where a tile at C's edge is computed before its part inside C is copied: in the reserved part of
 * the scratch memory, after the bytes that reductions use.
 */
const EDGE = -512;

/**
 * Defines the function that computes C (rows, columns) = base + A · B. `base` is the address of the values to add: C
 * itself, with C's stride, to accumulate; a bias of `columns` elements, with stride 0; or 0 to add nothing. Writes only
 * the given rows and columns of C.
 */
export function defineMultiply(f: WasmFunction, width: Columns | typeof NATIVE.columns = tileColumns()): Multiply {
  if (width === NATIVE.columns) {
    return f.define("multiply", multiplyParameters, (f, ...args) => {
      const at = f.scratch(NATIVE.argumentsAt - RESERVED_SCRATCH);
      args.forEach((arg, i) => f.i32.store(at, i, arg));
      f.callNative();
    });
  }
  const tile = defineTile(f, width);
  return f.define("multiply", multiplyParameters, (f, a, b, c, stride, rows, columns, K, base, baseStride) => {
    const { sub, mul, min, divUp } = f.i32;
    const aPanelBytes = mul(K, 4 * ROWS), bPanelBytes = mul(K, 4 * width);
    const tileStride = mul(stride, ROWS), baseTileStride = mul(baseStride, ROWS), bPanel = f.i32.copy(b);

    f.loop(0, divUp(columns, width), 1, (j) => {
      const left = mul(j, width), tileColumns = min(sub(columns, left), width);
      const aPanel = f.i32.copy(a), cTile = f.i32.at(c, left);
      const baseTile = f.i32.select(base, f.i32.at(base, left), 0);
      f.loop(0, divUp(rows, ROWS), 1, (i) => {
        const tileRows = min(sub(rows, mul(i, ROWS)), ROWS);
        f.when(f.i32.eq(mul(tileRows, tileColumns), ROWS * width), () => {
          f.call(tile, aPanel, bPanel, cTile, stride, K, baseTile, baseStride);
        }, () => {
          const edge = f.scratch(EDGE), into = f.i32.copy(cTile), added = f.i32.copy(baseTile);
          f.call(tile, aPanel, bPanel, edge, 4 * width, K, 0, 0);
          f.loop(0, tileRows, 1, () => {
            f.when(base, () => {
              f.forEach(0, tileColumns, (at, v) => v.store(into, at, v.add(v.load(added, at), v.load(edge, at))));
            }, () => f.forEach(0, tileColumns, (at, v) => v.store(into, at, v.load(edge, at))));
            f.i32.advance(into, stride);
            f.i32.advance(added, baseStride);
            f.i32.advance(edge, 4 * width);
          });
        });
        f.i32.advance(aPanel, aPanelBytes);
        f.i32.advance(cTile, tileStride);
        f.i32.advance(baseTile, baseTileStride);
      });
      f.i32.advance(bPanel, bPanelBytes);
    });
  });
}

/**
 * Defines the function that computes one whole tile. Parameters: a, b (panels), c, c's stride, K, base, base's stride.
 */
function defineTile(f: WasmFunction, width: Columns) {
  return f.define(
    "tile",
    ["i32", "i32", "i32", "i32", "i32", "i32", "i32"],
    (f, a, b, c, stride, K, base, baseStride) => {
      const v = new Lanes(f, 8), unroll = 64 / width;
      const sums = Array.from({ length: ROWS }, () => Array.from({ length: width / 8 }, () => v.accumulator()));
      const steps = (count: number) => () => {
        for (let u = 0; u < count; u++) {
          const bRow = sums[0].map((_, j) => v.loadFrom(b, 4 * (u * width + 8 * j)));
          sums.forEach((row, i) => {
            const element = v.loadSplat(a, 4 * (u * ROWS + i));
            row.forEach((sum, j) => v.assign(sum, v.madd(element, bRow[j], sum)));
          });
        }
        f.i32.advance(a, 4 * ROWS * count);
        f.i32.advance(b, 4 * width * count);
      };
      f.loop(f.loop(0, K, unroll, steps(unroll)), K, 1, steps(1));
      const finish = (added: boolean) => () =>
        sums.forEach((row) => {
          const values = row.map((sum, j) => added ? v.add(v.loadFrom(base, 32 * j), sum) : sum);
          values.forEach((value, j) => v.storeTo(c, 32 * j, value));
          f.i32.advance(c, stride);
          f.i32.advance(base, baseStride);
        });
      f.when(base, finish(true), finish(false));
    },
  );
}

/** Whether the WebAssembly engine has SIMD and relaxed SIMD, which the tiles and most kernels need. */
export function hasRelaxedSimd(): boolean {
  const f = WasmFunction.main("probe"), v = new Lanes(f, 8), x = v.accumulator();
  v.madd(x, x, x);
  return WebAssembly.validate(f.module({ initial: 1, maximum: 1, shared: false }));
}

let chosen: Columns | undefined;

/**
 * The width of WebAssembly's tile: 16 if V8 pairs vectors into 256-bit registers, else 8. Only a measurement can tell:
 * if V8 pairs, 16 columns are 1.4 to 1.7 times as fast as 8; if it does not, they spill registers, and are slower. A
 * gain of 2.5 or more only means that V8 had optimized the wider tile and not yet the narrower one. This happens
 * without `--no-liftoff`, and then V8 does not pair.
 */
export function tileColumns(): Columns {
  if (!chosen) {
    const gain = timeTile(8) / timeTile(16);
    chosen = gain > 1.2 && gain < 2.5 ? 16 : 8;
  }
  return chosen;
}

const times = new Map<Columns, number>();

/** Milliseconds per 20 · KC multiply-adds (of single elements) in the tile, measured once per width. */
export function timeTile(width: Columns): number {
  const known = times.get(width);
  if (known !== undefined) return known;
  const f = WasmFunction.main("time"), [a, b, c, calls] = [0, 1, 2, 3].map(() => f.parameter("i32"));
  const tile = defineTile(f, width), pages = { initial: 1, maximum: 1, shared: false };
  f.loop(0, calls, 1, () => f.call(tile, a, b, c, 4 * width, KC, 0, 0));
  const memory = new WebAssembly.Memory(pages);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(f.module(pages)), {
    env: { memory, scratch: 0 },
  });
  const run = exports.run as (a: number, b: number, c: number, calls: number) => void;
  let best = Infinity;
  for (let repeat = 0; repeat < 10; repeat++) {
    const start = performance.now();
    run(0, 16384, 49152, 20);
    best = Math.min(best, performance.now() - start);
  }
  times.set(width, best / (ROWS * width));
  return best / (ROWS * width);
}
