import {
  type F32Local,
  type I32Local,
  Lanes,
  type Locals,
  type Vector,
  type WasmFunction,
} from "../../src/wasm/assembler.ts";

type Sizes = Record<"outer" | "axis" | "inner", number>;
type Named = Locals<"x" | "y" | "outer" | "axis" | "inner" | "begin" | "end" | "workspace">;

/** An operation that reduces contiguous elements (`row`) or vectors of neighbouring columns (`combine`). */
interface Reduction<L extends Named> {
  readonly start: number;
  row(f: WasmFunction, n: I32Local, load: (at: I32Local, v: Lanes) => Vector): F32Local;
  combine(v: Lanes, sofar: Vector, x: Vector): Vector;
  /** Stores results in y. */
  finish(f: WasmFunction, v: Lanes, locals: L, at: I32Local, result: Vector): void;
}

/**
 * Elements of the axis that are reduced at a time. A longer axis is cut into blocks, whose results are then reduced.
 */
const BLOCK = { rows: 4096, columns: 256 };
/** Neighbouring columns of a task: four vectors, two cache lines of each row. */
const COLUMNS = 32;

/**
 * The phases of a reduction. A short axis takes one phase, `whole`. A long axis takes two: `cut` stores the results of
 * blocks in the workspace, and `join` reduces them. So a single long sum has many tasks, and its result does not depend
 * on which thread computes which block.
 */
function phases<L extends Named>(reduction: Reduction<L>) {
  type Part = "whole" | "cut" | "join";
  const phase = (form: "rows" | "columns", part: Part) => {
    const block = BLOCK[form], blocksOf = ({ axis }: Sizes) => Math.ceil(axis / block);
    const results = (sizes: Sizes) => sizes.outer * sizes.inner * (part === "cut" ? blocksOf(sizes) : 1);
    return {
      tasks: (sizes: Sizes) =>
        form === "rows" ? results(sizes) : results(sizes) / sizes.inner * Math.ceil(sizes.inner / COLUMNS),
      work: ({ outer, axis, inner }: Sizes) => outer * axis * inner / (part === "join" ? block : 1),
      workspace: (sizes: Sizes) => part === "whole" ? 0 : sizes.outer * sizes.inner * blocksOf(sizes),
      emit(f: WasmFunction, locals: L): void {
        const { x, axis, inner, workspace, begin, end } = locals;
        const blocks = f.i32.divUp(axis, block);
        const [source, length] = part === "join" ? [workspace, blocks] : [x, axis];
        /** The address of result r's block, and the block's length. */
        const blockOf = (r: I32Local) => {
          if (part !== "cut") return { start: f.i32.at(source, f.i32.mul(f.i32.mul(r, length), inner)), n: length };
          const from = f.i32.mul(f.i32.rem(r, blocks), block), o = f.i32.div(r, blocks);
          const start = f.i32.at(source, f.i32.mul(f.i32.add(f.i32.mul(o, length), from), inner));
          return { start, n: f.i32.min(f.i32.sub(length, from), block) };
        };
        const finish = (v: Lanes, at: I32Local, result: Vector) =>
          part === "cut" ? v.store(workspace, at, result) : reduction.finish(f, v, locals, at, result);

        if (form === "rows") {
          f.loop(begin, end, 1, (r) => {
            const { start, n } = blockOf(r);
            finish(new Lanes(f, 1), r, f.splat(reduction.row(f, n, (at, v) => v.load(start, at))));
          });
          return;
        }
        const groups = f.i32.divUp(inner, COLUMNS), stride = f.i32.shl(inner, 2);
        f.loop(begin, end, 1, (task) => {
          const r = f.i32.div(task, groups), { start, n } = blockOf(r), first = f.i32.mul(r, inner);
          const from = f.i32.mul(f.i32.rem(task, groups), COLUMNS), to = f.i32.min(f.i32.add(from, COLUMNS), inner);
          const columns = (from: I32Local, width: 8 | 1, vectors: number) =>
            f.loop(from, to, width * vectors, (i) => {
              const v = new Lanes(f, width), row = f.i32.at(start, i);
              const sofar = Array.from({ length: vectors }, () => v.accumulator(reduction.start));
              f.loop(0, n, 1, () => {
                const loaded = sofar.map((_, j) => v.loadFrom(row, 32 * j));
                sofar.forEach((old, j) => v.assign(old, reduction.combine(v, old, loaded[j])));
                f.i32.advance(row, stride);
              });
              const at = f.i32.add(first, i);
              sofar.forEach((result, j) => finish(v, f.i32.add(at, 8 * j), result));
            });
          columns(columns(columns(from, 8, COLUMNS / 8), 8, 1), 1, 1);
        });
      },
    };
  };
  const of = (form: "rows" | "columns") => ({
    short: [phase(form, "whole")],
    long: [phase(form, "cut"), phase(form, "join")],
  });
  const rows = of("rows"), columns = of("columns");
  return ({ axis, inner }: Sizes) => {
    const form = inner === 1 ? "rows" : "columns";
    return { rows, columns }[form][axis > BLOCK[form] ? "long" : "short"];
  };
}

export const sum = phases<Named & { divisor: F32Local }>({
  start: 0,
  row: (f, n, load) => f.sum(n, load),
  combine: (v, sofar, x) => v.add(sofar, x),
  finish: (f, v, { y, divisor }, at, result) => v.accumulate(y, at, v.div(result, f.splat(divisor))),
});

export const max = phases<Named>({
  start: -Infinity,
  // The vectors' maximum ignores NaN, so NaN is searched for separately.
  row(f, n, load) {
    const [most, odd] = f.reduce("max", 2, n, (at, v) => {
      const x = load(at, v);
      return [x, v.and(v.ne(x, x), f.splat(1))];
    });
    return f.f32.select(f.f32.gt(odd, 0), NaN, most);
  },
  combine: (v, sofar, x) => v.select(v.ne(x, x), x, v.max(sofar, x)),
  finish: (_, v, { y }, at, result) => v.store(y, at, result),
});

/** A task is a line of x along the axis. */
export function maxBackward(
  f: WasmFunction,
  { x, y, dy, dx, axis, inner, begin, end }: Locals<"x" | "y" | "dy" | "dx" | "axis" | "inner" | "begin" | "end">,
): void {
  f.loop(begin, end, 1, (line) => {
    const first = f.i32.add(f.i32.mul(f.i32.mul(f.i32.div(line, inner), axis), inner), f.i32.rem(line, inner));
    const most = f.f32.loadAt(y, line), gradient = f.f32.loadAt(dy, line), pending = f.i32.constant(1);
    const odd = f.i32.eq(f.f32.eq(most, most), 0);
    f.loop(0, axis, 1, (k) => {
      const at = f.i32.add(first, f.i32.mul(k, inner)), value = f.f32.loadAt(x, at);
      const same = f.i32.or(f.f32.eq(value, most), f.i32.and(odd, f.i32.eq(f.f32.eq(value, value), 0)));
      const found = f.i32.and(pending, same);
      f.f32.accumulate(dx, at, f.f32.select(found, gradient, 0));
      f.i32.advance(pending, f.i32.sub(0, found));
    });
  });
}
