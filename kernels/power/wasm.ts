import type { F32Local, Lanes, Locals, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { exp, splitLog } from "../../src/wasm/math.ts";

type LanesOf = (v: Lanes, x: Vector) => Vector;

/** Common exponents have a formula and a loop of their own, which are exact and fast. */
export function power(
  f: WasmFunction,
  { x, y, exponent, factor, begin, end }: Locals<"x" | "y" | "begin" | "end", "exponent" | "factor">,
): void {
  const one = f.splat(1), scale = f.splat(factor);
  const formulas: [number, LanesOf][] = [
    [0, () => one],
    [1, (_, x) => x],
    [2, (v, x) => v.mul(x, x)],
    [3, (v, x) => v.mul(v.mul(x, x), x)],
    [0.5, (v, x) => v.sqrt(x)],
    [-0.5, (v, x) => v.div(one, v.sqrt(x))],
    [-1, (v, x) => v.div(one, x)],
    [-2, (v, x) => v.div(one, v.mul(x, x))],
  ];
  const loop = (of: LanesOf) => f.forEach(begin, end, (at, v) => v.store(y, at, v.mul(scale, of(v, v.load(x, at)))));
  formulas.reduce(
    (otherwise, [value, formula]) => () => f.when(f.f32.eq(exponent, value), () => loop(formula), otherwise),
    () => loop(anyPower(f, exponent)),
  )();
}

/**
 * |x|^e = exp(e · log |x|), corrected for the rounding error of the product. For negative x, an odd e gives the result a
 * minus sign, and a fractional e gives NaN.
 */
function anyPower(f: WasmFunction, exponent: F32Local): LanesOf {
  const half = f.f32.mul(exponent, 0.5), whole = f.f32.eq(f.f32.floor(exponent), exponent);
  const odd = f.i32.and(whole, f.i32.eq(f.f32.eq(f.f32.floor(half), half), 0));
  const signs = f.splatI32(f.i32.shl(odd, 31)), refused = f.splatI32(f.i32.sub(whole, 1)); // all ones if not whole
  const grows = f.f32.gt(exponent, 0), e = f.splat(exponent), zero = f.splat(0), infinity = f.splat(Infinity);
  const ofZero = f.splat(f.f32.select(grows, 0, Infinity)), ofInfinity = f.splat(f.f32.select(grows, Infinity, 0));
  return (v, x) => {
    const size = v.abs(x), { high, rest } = splitLog(f, v, size);
    const t = v.mul(e, high), low = v.sub(v.mul(e, rest), v.nmadd(e, high, t));
    const about = exp(f, v, t), finite = v.lt(about, infinity);
    let result = v.select(finite, v.madd(about, low, about), about);
    result = v.select(v.eq(size, zero), ofZero, v.select(v.eq(size, infinity), ofInfinity, result));
    // An odd exponent keeps x's sign. NaN stays NaN; negative x with a fractional exponent becomes NaN.
    const lost = v.or(v.ne(x, x), v.and(v.and(refused, v.lt(x, zero)), v.lt(size, infinity)));
    return v.or(v.or(result, v.and(x, signs)), lost);
  };
}
