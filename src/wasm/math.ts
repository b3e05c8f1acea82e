/** Elementary functions on lanes. NaN stays NaN, and a result has the same bits in whichever lane it is computed. */
import type { Lanes, Vector, WasmFunction } from "./assembler.ts";

/** Σ coefficients[i] · x^(n − i), where n is the last index, by Horner's rule. */
export function polynomial(f: WasmFunction, v: Lanes, x: Vector, coefficients: readonly number[]): Vector {
  const [first, ...rest] = coefficients.map((c) => f.splat(c));
  return rest.reduce((sum, c) => v.madd(sum, x, c), first);
}

// Cephes' polynomials, highest power first.
// deno-fmt-ignore
const EXP = [
  1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
];
// deno-fmt-ignore
const LOG = [
  7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
];

/**
 * eˣ = 2ⁿ · eʳ with n = ⌊x / ln 2⌉ and |r| ≤ ln 2 / 2; relative error below 1e-7. Zero below −86.6, infinity above
 * 88.72.
 *
 * Adding 1.5 · 2²³ to x / ln 2 rounds it to the integer n, which is then in the sum's low bits. The polynomial for eʳ
 * is Cephes'.
 */
export function exp(f: WasmFunction, v: Lanes, x: Vector): Vector {
  const low = f.splat(-86.6), high = f.splat(88.7228391116729), magic = f.splat(12582912);
  const clamped = v.min(v.max(x, low), high);
  const shifted = v.madd(clamped, f.splat(Math.LOG2E), magic), n = v.sub(shifted, magic);
  const r = v.nmadd(n, f.splat(-2.12194440e-4), v.nmadd(n, f.splat(0.693359375), clamped));
  const p = polynomial(f, v, r, EXP);
  const mantissa = v.add(v.madd(v.mul(p, r), r, r), f.splat(1));
  // Computes 2ⁿ⁻¹ by adding to the exponent, then doubles it: n reaches 128, which is too large for an exponent.
  const half = v.addI32(mantissa, v.shl(v.subI32(shifted, f.splatI32(1)), 23));
  return v.andNot(v.select(v.le(x, high), v.add(half, half), v.max(x, f.splat(Infinity))), v.lt(x, low));
}

/**
 * The natural logarithm, as the sum of a float and a small rest:
 *
 *     x = 2ⁿ · m with √½ ≤ m < √2,  log x = n ln 2 + log(1 + f) with f = m − 1
 *
 * The polynomial, from Cephes, is (log(1 + f) − f + f²/2) / f³. Valid for positive x, including infinity. Denormals are
 * scaled up.
 */
export function splitLog(f: WasmFunction, v: Lanes, x: Vector): { high: Vector; rest: Vector } {
  const tiny = v.lt(x, f.splat(2 ** -126)), one = f.splat(1);
  const bits = v.select(tiny, v.mul(x, f.splat(2 ** 23)), x); // vectors are untyped: these are the floats' bits
  const exponent = v.shrSigned(v.subI32(bits, f.splatI32(0x3f3504f3)), 23);
  const m = v.subI32(bits, v.shl(exponent, 23)), r = v.sub(m, one);
  const n = v.sub(v.fromI32(exponent), v.and(tiny, f.splat(23)));
  const p = polynomial(f, v, r, LOG);
  // n · 0.693359375 and r are exact. The errors made in rounding their sum, the square f²/2 and its subtraction are
  // added to the rest.
  const half = v.mul(r, f.splat(0.5)), square = v.mul(half, r);
  const big = v.mul(n, f.splat(0.693359375)), first = v.add(big, r), second = v.sub(first, square);
  const lost = [v.sub(r, v.sub(first, big)), v.nmadd(half, r, square), v.sub(v.sub(first, second), square)];
  const small = v.madd(v.mul(v.mul(r, r), r), p, v.mul(n, f.splat(-2.12194440e-4)));
  const rest = lost.reduce((sum, part) => v.add(sum, part), small), high = v.add(second, rest);
  return { high, rest: v.sub(rest, v.sub(high, second)) };
}

/** The natural logarithm, within one unit in the last place: −∞ for 0, NaN for negative numbers. */
export function log(f: WasmFunction, v: Lanes, x: Vector): Vector {
  const zero = f.splat(0), { high } = splitLog(f, v, x);
  const special = v.select(v.eq(x, zero), f.splat(-Infinity), v.or(x, v.lt(x, zero))); // a mask of all ones is NaN
  return v.select(v.and(v.gt(x, zero), v.lt(x, f.splat(Infinity))), high, special);
}

/**
 * tanh x = x · P(x²) / Q(x²), fitted to a relative error of 2e-8 up to |x| = 9.02, above which 1 is the nearest float.
 * The constant terms of both polynomials are 1, so small x are returned unchanged.
 */
export function tanh(f: WasmFunction, v: Lanes, x: Vector): Vector {
  const bound = f.splat(9.02), one = f.splat(1);
  const inside = v.min(v.max(x, f.splat(-9.02)), bound), z = v.mul(inside, inside);
  const p = polynomial(f, v, z, [1.338421397e-8, 2.063576501e-5, 3.497454161e-3, 1.338268433e-1, 1]);
  const q = polynomial(f, v, z, [7.790217058e-7, 3.288511604e-4, 2.588434760e-2, 4.671600558e-1, 1]);
  return v.min(v.max(v.div(v.mul(inside, p), q), f.splat(-1)), one);
}
