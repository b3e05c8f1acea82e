import type { I32Local, Locals, WasmFunction } from "../../src/wasm/assembler.ts";
import { tileColumns } from "../../src/wasm/gemm.ts";
import { unpackRow } from "../../src/wasm/packing.ts";

/** The id at place i, at most V − 1; negative ids are large when unsigned. */
const clamped = (f: WasmFunction, ids: I32Local, i: I32Local, V: I32Local) =>
  f.i32.min(f.i32.loadAt(ids, i), f.i32.sub(V, 1));

/** Looks up rows `begin` to `end` of y. */
export function embeddingForward(
  f: WasmFunction,
  { ids, weight, y, V, C, begin, end }: Locals<"ids" | "weight" | "y" | "V" | "C" | "begin" | "end">,
): void {
  f.loop(begin, end, 1, (i) => {
    const id = clamped(f, ids, i, V), yRow = f.i32.at(y, f.i32.mul(i, C));
    if (weight.panels) return unpackRow(f, weight, tileColumns(), { row: id, K: C, into: yRow });
    const row = f.i32.at(weight, f.i32.mul(id, C));
    f.forEach(0, C, (c, v) => v.store(yRow, c, v.load(row, c)));
  });
}

type Sizes = Record<"n" | "V" | "C", number>;

/**
 * One thread sorts the places by their ids (counting sort). Then each row of the table adds up the gradients of its
 * places. The workspace holds `ends` (V + 1), whose first element is 0 and whose element v + 1 is where the places of
 * id v end in `places` (n).
 */
export const embeddingBackward = [
  {
    tasks: () => 1,
    workspace: ({ V, n }: Sizes) => V + 1 + n,
    emit(f: WasmFunction, { ids, n, V, workspace }: Locals<"ids" | "n" | "V" | "workspace">): void {
      const places = f.i32.at(workspace, f.i32.add(V, 1)), counts = f.i32.at(workspace, 1);
      const increment = (pointer: I32Local, at: I32Local) => {
        const value = f.i32.loadAt(pointer, at);
        f.i32.store(pointer, at, f.i32.add(value, 1));
        return value;
      };
      const zero = f.splatI32(0);
      f.forEach(0, f.i32.add(V, 1), (v, lanes) => lanes.store(workspace, v, zero));
      // Counts the places of each id, then sums the counts of smaller ids: where the id's places begin.
      f.loop(0, n, 1, (i) => void increment(counts, clamped(f, ids, i, V)));
      const sum = f.i32.constant(0);
      f.loop(0, V, 1, (v) => {
        const count = f.i32.loadAt(counts, v);
        f.i32.store(counts, v, sum);
        f.assign(sum, f.i32.add(sum, count));
      });
      // Stores each place and advances its id's position, so that afterwards `counts` holds where the places end.
      f.loop(0, n, 1, (i) => f.i32.store(places, increment(counts, clamped(f, ids, i, V)), i));
    },
  },
  {
    tasks: ({ V }: Sizes) => V,
    work: ({ n, V, C }: Sizes) => n * C + V,
    emit(
      f: WasmFunction,
      { dy, dweight, V, C, workspace, begin, end }: Locals<
        "dy" | "dweight" | "V" | "C" | "workspace" | "begin" | "end"
      >,
    ): void {
      const places = f.i32.at(workspace, f.i32.add(V, 1));
      f.loop(begin, end, 1, (v) => {
        const first = f.i32.loadAt(workspace, v), last = f.i32.load(f.i32.at(workspace, v), 1);
        const row = f.i32.at(dweight, f.i32.mul(v, C));
        row.fresh = dweight.fresh;
        const addUp = () =>
          f.forEach(0, C, (c, lanes) => {
            const sum = lanes.accumulator(), column = f.i32.at(dy, c);
            f.loop(first, last, 1, (k) => {
              const at = f.i32.mul(f.i32.loadAt(places, k), C);
              lanes.assign(sum, lanes.add(sum, lanes.load(column, at)));
            });
            lanes.accumulate(row, c, sum);
          });
        if (dweight.fresh) addUp(); // writes zeros if the id does not occur
        else f.when(f.i32.lt(first, last), addUp);
      });
    },
  },
];
