/** A product with a few rows of a (decoding): packing would not pay, for every element of b is used so rarely. */
import { type I32Local, Lanes, type Vector, type WasmFunction } from "../../src/wasm/assembler.ts";
import type { MatmulLocals, Phase } from "./wasm.ts";

/** Up to this many rows. */
export const MOST_ROWS = 4;

/** c += a · bᵀ with `rows` rows of a: the rows of b, which are the tasks, are read once, in place. */
export function fewRows(rows: number): Phase {
  return {
    tasks: ({ batch, N }) => batch * N,
    emit(f, locals) {
      const { begin, end, N } = locals, together = MOST_ROWS / rows | 0;
      f.loop(f.i32.div(begin, N), f.i32.divUp(end, N), 1, (batch) => {
        const first = f.i32.mul(batch, N), last = f.i32.min(f.i32.sub(end, first), N);
        const from = f.i32.sub(f.i32.max(begin, first), first);
        const columns = (count: number) => (column: I32Local) => multiply(f, locals, { batch, column, rows, count });
        f.loop(f.loop(from, last, together, columns(together)), last, 1, columns(1));
      });
    },
  };
}

/** `count` elements of each of the rows of c. Each is the sum of sixteen, so that additions do not wait for one another. */
function multiply(
  f: WasmFunction,
  { a, b, bias, c, N, K }: MatmulLocals,
  { batch, column, rows, count }: { batch: I32Local; column: I32Local; rows: number; count: number },
): void {
  const { add, mul, at } = f.i32, first = mul(batch, rows), bFirst = at(b, mul(add(mul(batch, N), column), K));
  const aRows = Array.from({ length: rows }, (_, m) => at(a, mul(add(first, m), K)));
  const bRows = Array.from({ length: count }, (_, n) => at(bFirst, mul(K, n)));
  const eight = new Lanes(f, 8), one = new Lanes(f, 1);
  const sums = (lanes: Lanes) => bRows.flatMap(() => aRows.map(() => lanes.accumulator()));
  const [even, odd, single] = [sums(eight), sums(eight), sums(one)];
  const step = (lanes: Lanes, into: Vector[], from: number) => {
    const elements = aRows.map((row) => lanes.loadFrom(row, from * row.bytes));
    bRows.forEach((row, n) => {
      const weight = lanes.loadFrom(row, from * row.bytes), sums = into.slice(n * rows);
      elements.forEach((element, m) => lanes.assign(sums[m], lanes.madd(weight, element, sums[m])));
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
  f.loop(eights, K, 1, () => {
    step(one, single, 0);
    advance(1);
  });
  even.forEach((_, i) => {
    const sum = f.fold("add", even[i], odd[i], single[i]), m = i % rows, to = add(column, (i - m) / rows);
    const place = add(mul(add(first, m), N), to);
    if (bias) f.f32.store(c, place, f.f32.add(sum, f.f32.loadAt(bias, to)));
    else f.f32.accumulate(c, place, sum);
  });
}
