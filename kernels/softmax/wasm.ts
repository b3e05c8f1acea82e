/**
 * Softmax in WebAssembly; kernel.ts has the equations. A line is the elements along the axis at one (outer, inner). The
 * code of each kernel is written once and assembled twice, for lines that are contiguous in memory and for strided
 * lines.
 */
import type { CpuPhase } from "../../src/kernel.ts";
import { type I32Local, Lanes, type Locals, type Vector, type WasmFunction } from "../../src/wasm/assembler.ts";
import { exp, log } from "../../src/wasm/math.ts";

type Sizes = Record<"outer" | "axis" | "inner", number>;
type Arguments<Names extends string> = Locals<Names | "outer" | "axis" | "inner" | "begin" | "end">;

/** One line along the axis, or eight neighbouring lines. `at` is an index into the operands. */
interface Line {
  /** The sum or the maximum of `body` along the line, in every lane of the result. */
  reduce(how: "add" | "max", body: (at: I32Local, v: Lanes) => Vector): Vector;
  forEach(body: (at: I32Local, v: Lanes) => void): void;
}
/** A kernel's code for a line. `v` is for values that are computed once per line, such as 1 / sum. */
type Body<Names extends string> = (f: WasmFunction, of: Arguments<Names>, line: Line, v: Lanes) => void;

/** For inner = 1, when a line is contiguous: the lanes go along it. */
const along = <Names extends string>(body: Body<Names>): CpuPhase<Sizes, Arguments<Names>> => ({
  tasks: ({ outer }) => outer,
  emit: (f, of) =>
    void f.loop(of.begin, of.end, 1, (number) => {
      const first = f.i32.mul(number, of.axis), place = (c: I32Local) => f.i32.add(first, c);
      body(f, of, {
        reduce: (how, body) => f.splat(f.reduce(how, 1, of.axis, (c, v) => [body(place(c), v)])[0]),
        forEach: (body) => f.forEach(0, of.axis, (c, v) => body(place(c), v)),
      }, new Lanes(f, 1));
    }),
});

/** For inner > 1, when elements of neighbouring lines are contiguous: each lane goes along a line of its own. */
const across = <Names extends string>(body: Body<Names>): CpuPhase<Sizes, Arguments<Names>> => ({
  tasks: ({ outer, inner }) => outer * Math.ceil(inner / 8),
  emit: (f, of) =>
    void f.loop(of.begin, of.end, 1, (number) => {
      const groups = f.i32.divUp(of.inner, 8), left = f.i32.shl(f.i32.rem(number, groups), 3);
      const first = f.i32.mul(f.i32.div(number, groups), f.i32.mul(of.axis, of.inner));
      f.forEach(left, f.i32.min(f.i32.add(left, 8), of.inner), (column, v) => {
        const start = f.i32.add(first, column);
        const steps = (body: (at: I32Local) => void) =>
          f.loop(0, of.axis, 1, (i) => body(f.i32.add(start, f.i32.mul(i, of.inner))));
        body(f, of, {
          reduce(how, body) {
            const result = v.accumulator(how === "add" ? 0 : -Infinity);
            steps((at) => v.assign(result, v[how](result, body(at, v))));
            return result;
          },
          forEach: (body) => void steps((at) => body(at, v)),
        }, v);
      });
    }),
});

function ways<Names extends string>(body: Body<Names>) {
  const [one, other] = [[along(body)], [across(body)]];
  return ({ inner }: Sizes) => inner === 1 ? one : other;
}

export const softmaxForward = ways<"x" | "y">((f, { x, y }, line, v) => {
  const max = line.reduce("max", (at, v) => v.load(x, at));
  const sum = line.reduce("add", (at, v) => {
    const e = exp(f, v, v.sub(v.load(x, at), max));
    v.store(y, at, e);
    return e;
  });
  const scale = v.div(f.splat(1), sum);
  line.forEach((at, v) => v.store(y, at, v.mul(v.load(y, at), scale)));
});

export const softmaxBackward = ways<"dy" | "y" | "dx">((_, { dy, y, dx }, line) => {
  const sum = line.reduce("add", (at, v) => v.mul(v.load(dy, at), v.load(y, at)));
  line.forEach((at, v) => v.accumulate(dx, at, v.mul(v.load(y, at), v.sub(v.load(dy, at), sum))));
});

export const logSoftmaxForward = ways<"x" | "y">((f, { x, y }, line, v) => {
  const max = line.reduce("max", (at, v) => v.load(x, at));
  const logSum = log(f, v, line.reduce("add", (at, v) => exp(f, v, v.sub(v.load(x, at), max))));
  line.forEach((at, v) => v.store(y, at, v.sub(v.sub(v.load(x, at), max), logSum)));
});

export const logSoftmaxBackward = ways<"dy" | "y" | "dx">((f, { dy, y, dx }, line) => {
  const sum = line.reduce("add", (at, v) => v.load(dy, at));
  line.forEach((at, v) => v.accumulate(dx, at, v.nmadd(exp(f, v, v.load(y, at)), sum, v.load(dy, at))));
});
