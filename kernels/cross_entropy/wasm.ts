/** Cross-entropy in WebAssembly. kernel.ts has the equations. */
import type { F32, I32Local, Locals, WasmFunction } from "../../src/wasm/assembler.ts";
import { exp, log } from "../../src/wasm/math.ts";

type Rows = "logits" | "targets" | "lse" | "count" | "V" | "ignore" | "begin" | "end";

/** Computes each row's log-sum-exp, and stores its loss, 0 if its target is `ignore`, in the workspace. */
function losses(
  f: WasmFunction,
  { logits, targets, lse, V, ignore, workspace, begin, end }: Locals<Rows | "workspace">,
) {
  f.loop(begin, end, 1, (row) => {
    const x = f.i32.at(logits, f.i32.mul(row, V)), target = f.i32.loadAt(targets, row);
    const [max] = f.reduce("max", 1, V, (c, v) => [v.load(x, c)]), least = f.splat(max);
    const sum = f.sum(V, (c, v) => exp(f, v, v.sub(v.load(x, c), least)));
    const logarithm = f.f32.through(sum, (v, sum) => log(f, v, sum));
    f.f32.store(lse, row, f.f32.add(max, logarithm));
    const loss = f.f32.add(f.f32.sub(max, f.f32.loadAt(x, classOf(f, target, V))), logarithm);
    f.f32.store(workspace, row, f.f32.select(f.i32.eq(target, ignore), 0, loss));
  });
}

/** The mean of the losses over the rows that count. */
function mean(
  f: WasmFunction,
  { targets, loss, count, rows, ignore, workspace }: Locals<Rows | "loss" | "rows" | "workspace">,
) {
  const ignored = f.splatI32(ignore), zero = f.splat(0), one = f.splat(1);
  const [total, counted] = f.reduce("add", 2, rows, (row, v) => [
    v.load(workspace, row),
    v.select(v.eqI32(v.load(targets, row), ignored), zero, one),
  ]);
  f.f32.store(loss, 0, f.f32.div(total, counted));
  f.f32.store(count, 0, counted);
}

export const forward = [
  { tasks: ({ rows }: { rows: number }) => rows, workspace: ({ rows }: { rows: number }) => rows, emit: losses },
  { tasks: () => 1, emit: mean },
];

export function backward(
  f: WasmFunction,
  { dloss, logits, targets, lse, count, dlogits, V, ignore, begin, end }: Locals<Rows | "dloss" | "dlogits">,
) {
  const share = f.f32.div(f.f32.load(dloss), f.f32.load(count)), scale = f.splat(share);
  f.loop(begin, end, 1, (row) => {
    const first = f.i32.mul(row, V), x = f.i32.at(logits, first), target = f.i32.loadAt(targets, row);
    const dx = Object.assign(f.i32.at(dlogits, first), { fresh: dlogits.fresh });
    f.when(f.i32.eq(target, ignore), () => {
      const zero = f.splat(0);
      if (dx.fresh) f.forEach(0, V, (c, v) => v.store(dx, c, zero));
    }, () => {
      const shift = f.f32.loadAt(lse, row), shifts = f.splat(shift), at = classOf(f, target, V);
      const before: F32 = dx.fresh ? 0 : f.f32.loadAt(dx, at);
      f.forEach(0, V, (c, v) => v.accumulate(dx, c, v.mul(exp(f, v, v.sub(v.load(x, c), shifts)), scale)));
      // Computes the target's element again: subtracting 1 first keeps the digits of a probability near 1.
      const probability = f.f32.through(f.f32.sub(f.f32.loadAt(x, at), shift), (v, x) => exp(f, v, x));
      f.f32.store(dx, at, f.f32.add(before, f.f32.mul(f.f32.sub(probability, 1), share)));
    });
  });
}

function classOf(f: WasmFunction, target: I32Local, V: I32Local): I32Local {
  return f.i32.min(target, f.i32.sub(V, 1));
}
