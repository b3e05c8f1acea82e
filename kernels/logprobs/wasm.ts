/** Log-probabilities in WebAssembly. kernel.ts has the equations. */
import type { F32, F32Local, I32Local, Locals, WasmFunction } from "../../src/wasm/assembler.ts";
import { exp, log } from "../../src/wasm/math.ts";

type Rows = "logits" | "targets" | "lse" | "V" | "ignore" | "begin" | "end";

/** A task is a row. */
export function forward(
  f: WasmFunction,
  { logits, targets, logprob, lse, entropy, mean, hit, V, ignore, scale, begin, end }: Locals<
    Rows | "logprob" | "entropy" | "mean" | "hit",
    "scale"
  >,
) {
  const by = f.splat(scale), length = f.f32.fromSize(V);
  f.loop(begin, end, 1, (row) => {
    const x = f.i32.at(logits, f.i32.mul(row, V)), target = f.i32.loadAt(targets, row);
    const [max] = f.reduce("max", 1, V, (c, v) => [v.load(x, c)]), greatest = f.splat(max);
    const [sum, weighted, total] = f.reduce("add", 3, V, (c, v) => {
      const logit = v.load(x, c), shifted = v.mul(v.sub(logit, greatest), by), e = exp(f, v, shifted);
      return [e, v.mul(e, shifted), logit];
    });
    const logarithm = f.f32.through(sum, (v, sum) => log(f, v, sum));
    const own = f.f32.loadAt(x, classOf(f, target, V)), ignored = f.i32.eq(target, ignore);
    const put = (into: I32Local, value: F32Local) => f.f32.store(into, row, f.f32.select(ignored, 0, value));
    f.f32.store(lse, row, f.f32.add(f.f32.mul(scale, max), logarithm));
    put(logprob, f.f32.sub(f.f32.mul(scale, f.f32.sub(own, max)), logarithm));
    put(entropy, f.f32.sub(logarithm, f.f32.div(weighted, sum)));
    put(mean, f.f32.div(total, length));
    put(hit, f.f32.select(f.f32.eq(own, max), 1, 0));
  });
}

/** A task is a row. */
export function backward(
  f: WasmFunction,
  { dlogprob, logits, targets, lse, dlogits, V, ignore, scale, begin, end }: Locals<
    Rows | "dlogprob" | "dlogits",
    "scale"
  >,
) {
  const by = f.splat(scale);
  f.loop(begin, end, 1, (row) => {
    const first = f.i32.mul(row, V), x = f.i32.at(logits, first), target = f.i32.loadAt(targets, row);
    const dx = Object.assign(f.i32.at(dlogits, first), { fresh: dlogits.fresh });
    f.when(f.i32.eq(target, ignore), () => {
      const zero = f.splat(0);
      if (dx.fresh) f.forEach(0, V, (c, v) => v.store(dx, c, zero));
    }, () => {
      const share = f.f32.mul(scale, f.f32.loadAt(dlogprob, row)), minus = f.splat(f.f32.sub(0, share));
      const shift = f.f32.loadAt(lse, row), shifts = f.splat(shift), at = classOf(f, target, V);
      const before: F32 = dx.fresh ? 0 : f.f32.loadAt(dx, at);
      f.forEach(0, V, (c, v) => v.accumulate(dx, c, v.mul(exp(f, v, v.sub(v.mul(v.load(x, c), by), shifts)), minus)));
      // Computes the target's element again: subtracting from 1 first keeps the digits of a probability near 1.
      const own = f.f32.sub(f.f32.mul(f.f32.loadAt(x, at), scale), shift);
      const probability = f.f32.through(own, (v, x) => exp(f, v, x));
      f.f32.store(dx, at, f.f32.add(before, f.f32.mul(f.f32.sub(1, probability), share)));
    });
  });
}

function classOf(f: WasmFunction, target: I32Local, V: I32Local): I32Local {
  return f.i32.min(target, f.i32.sub(V, 1));
}
