import { type F32Local, type I32Local, Lanes, type Locals, type WasmFunction } from "../../src/wasm/assembler.ts";
import { exp } from "../../src/wasm/math.ts";

type Names =
  | ("logits" | "noise" | "first" | "temperature" | "topK" | "ids")
  | ("V" | "drawn" | "workspace" | "begin" | "end");

/** Rows `begin` to `end`; x of kernel.ts, and then what is to be greatest, stand in the workspace. */
export function sample(f: WasmFunction, { begin, end, V, drawn, workspace, ...of }: Locals<Names>): void {
  const out = f.splat(-Infinity), before = f.i32.load(of.first);

  f.loop(begin, end, 1, (row) => {
    const temperature = f.f32.loadAt(of.temperature, row), isGreedy = f.f32.eq(temperature, 0);
    const greedy = f.splatI32(f.i32.sub(0, isGreedy)), divisor = f.splat(f.f32.select(isGreedy, 1, temperature));
    const first = f.i32.mul(row, V), x = f.i32.at(workspace, first), topK = f.i32.loadAt(of.topK, row);
    const logits = f.i32.at(of.logits, first), own = f.i32.rem(f.i32.add(before, row), drawn);
    const noise = f.i32.at(of.noise, f.i32.mul(own, V));
    f.forEach(0, V, (i, v) => v.store(x, i, v.div(v.load(logits, i), divisor)));
    const least = f.f32.constant(-Infinity);
    // Unsigned, so that a topK of 0 is above every V.
    f.when(f.i32.lt(f.i32.sub(topK, 1), f.i32.sub(V, 1)), () => f.assign(least, kthGreatest(f, x, V, topK)));

    const zero = f.splat(0), one = f.splat(1);
    const [highest, hasNaN] = f.reduce("max", 2, V, (i, v) => {
      const at = v.load(x, i);
      return [at, v.select(v.eq(at, at), zero, one)];
    });
    const threshold = f.splat(least), greatest = f.splat(highest);
    f.forEach(0, V, (i, v) => {
      const at = v.load(x, i), share = v.div(exp(f, v, v.sub(at, greatest)), v.load(noise, i));
      v.store(x, i, v.select(v.lt(at, threshold), out, v.select(greedy, at, share)));
    });

    const best = f.splat(maximum(f, x, V));
    const [negative] = f.reduce("max", 1, V, (i, v) => {
      const place = v.fromI32(v.addI32(v.iota(), f.splatI32(i)));
      return [v.select(v.eq(v.load(x, i), best), v.neg(place), out)];
    });
    // A finite number less itself is 0, an infinite one is not.
    const sound = f.f32.eq(f.f32.add(f.f32.sub(highest, highest), hasNaN), 0), single = new Lanes(f, 1);
    // Noise that is NaN leaves no best; an id within the vocabulary must come out all the same.
    const place = f.f32.min(f.f32.neg(negative), f.f32.fromInt(f.i32.sub(V, 1)));
    single.store(of.ids, row, single.truncate(f.splat(f.f32.select(sound, place, -1))));
  });
}

const maximum = (f: WasmFunction, x: I32Local, n: I32Local) => f.reduce("max", 1, n, (i, v) => [v.load(x, i)])[0];

/**
 * The greatest t that at least k elements reach. Read as integers, with negative ones turned round, floats keep their
 * order, so t is found bit by bit: 32 passes that count, and no sorting. NaN where k reaches down to −∞: less than
 * nothing, so nothing is left out.
 */
function kthGreatest(f: WasmFunction, x: I32Local, n: I32Local, k: I32Local): F32Local {
  const key = f.i32.constant(0), enough = f.f32.fromSize(k), one = f.splat(1), sign = 0x80000000;
  const toFloat = (key: I32Local) => {
    const positive = f.i32.shr(key, 31);
    return f.i32.asF32(f.i32.xor(key, f.i32.select(positive, f.i32.constant(sign), f.i32.constant(-1))));
  };
  f.loop(0, 32, 1, (bit) => {
    const higher = f.i32.or(key, f.i32.shr(f.i32.constant(sign), bit)), threshold = f.splat(toFloat(higher));
    const count = f.sum(n, (i, v) => v.and(v.ge(v.load(x, i), threshold), one));
    f.assign(key, f.i32.select(f.f32.ge(count, enough), higher, key));
  });
  return toFloat(key);
}
