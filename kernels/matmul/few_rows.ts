/** A product with a few rows of a (decoding): packing would not pay, for every element of b is used so rarely. */
import { type I32Local, Lanes, type Vector, type WasmFunction } from "../../src/wasm/assembler.ts";
import type { MatmulLocals, Phase } from "./wasm.ts";

/** Up to this many rows. */
export const MOST_ROWS = 4;
/** How many rows of b go together, by the rows of a: their sums fill the registers. */
const TOGETHER = [6, 3, 2, 2];

/**
 * c += a · bᵀ with `rows` rows of a: the rows of b, which are the tasks, are read once, in place. Those that go together lie in as
 * many parts of the tasks: a few long lines through the memory, which the processor foresees, where neighbours would be many
 * short ones. With b in memory this alone makes f32 1.2 times as fast, and bf16 1.6 times.
 */
export function fewRows(rows: number): Phase {
  return {
    tasks: ({ batch, N }) => batch * N,
    emit(f, locals) {
      const { begin, end, N } = locals, together = TOGETHER[rows - 1];
      f.loop(f.i32.div(begin, N), f.i32.divUp(end, N), 1, (batch) => {
        const first = f.i32.mul(batch, N), last = f.i32.min(f.i32.sub(end, first), N);
        const from = f.i32.sub(f.i32.max(begin, first), first);
        const part = f.i32.div(f.i32.sub(last, from), together), rest = f.i32.add(from, f.i32.mul(part, together));
        const columns = (count: number) => (column: I32Local) =>
          multiply(f, locals, { batch, column, rows, count, part });
        f.loop(from, f.i32.add(from, part), 1, columns(together));
        f.loop(rest, last, 1, columns(1));
      });
    },
  };
}

/** `count` elements of each of the rows of c, `part` apart. Each is the sum of sixteen, so that additions do not wait for one another. */
function multiply(
  f: WasmFunction,
  { a, b, bias, c, N, K }: MatmulLocals,
  { batch, column, rows, count, part }:
    & Record<"batch" | "column" | "part", I32Local>
    & Record<"rows" | "count", number>,
): void {
  const { add, mul, at } = f.i32, first = mul(batch, rows), bFirst = at(b, mul(add(mul(batch, N), column), K));
  const aRows = Array.from({ length: rows }, (_, m) => at(a, mul(add(first, m), K)));
  const bRows = Array.from({ length: count }, (_, n) => at(bFirst, mul(mul(part, n), K)));
  const eight = new Lanes(f, 8), one = new Lanes(f, 1);
  const sums = (lanes: Lanes) => bRows.flatMap(() => aRows.map(() => lanes.accumulator()));
  const [even, odd] = [sums(eight), sums(eight)];
  const step = (lanes: Lanes, into: Vector[], from: number) => {
    // Of the fewer ones, all are held in registers; of the others one at a time.
    const load = (row: I32Local) => lanes.loadFrom(row, from * row.bytes), byB = rows <= count;
    const held = (byB ? aRows : bRows).map(load);
    (byB ? bRows : aRows).forEach((row, i) => {
      const value = load(row);
      held.forEach((other, j) => {
        const sum = into[byB ? i * rows + j : j * rows + i];
        lanes.assign(sum, lanes.madd(value, other, sum));
      });
    });
  };
  const advance = (elements: number) => [...aRows, ...bRows].forEach((row) => f.i32.advance(row, elements * row.bytes));
  const sixteens = f.loop(0, K, 16, () => {
    step(eight, even, 0);
    step(eight, odd, 8);
    advance(16);
  });
  const eights = f.loop(sixteens, K, 8, () => {
    step(eight, even, 0);
    advance(8);
  });
  const single = sums(one); // here, so that it is in no register before
  f.loop(eights, K, 1, () => {
    step(one, single, 0);
    advance(1);
  });
  even.forEach((_, i) => {
    const sum = f.fold("add", even[i], odd[i], single[i]), m = i % rows, to = add(column, mul(part, (i - m) / rows));
    const place = add(mul(add(first, m), N), to);
    if (bias) f.f32.store(c, place, f.f32.add(sum, f.f32.loadAt(bias, to)));
    else f.f32.accumulate(c, place, sum);
  });
}
