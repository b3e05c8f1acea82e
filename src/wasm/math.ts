/** Elementary functions on lanes. Each keeps NaN, and every lane gets the same bits wherever it stands. */
import type { Lanes, Vector, WasmFunction } from "./assembler.ts";

/** Σ coefficients[i] · x^(n − i) by Horner's rule. */
export function polynomial(f: WasmFunction, v: Lanes, x: Vector, coefficients: readonly number[]): Vector {
  const [first, ...rest] = coefficients.map((c) => f.splat(c));
  return rest.reduce((sum, c) => v.madd(sum, x, c), first);
}

/**
 * eˣ = 2ⁿ · eʳ with n = ⌊x / ln 2⌉ and |r| ≤ ln 2 / 2; relative error below 1e-7. Zero below −86.6, infinity above 88.72.
 *
 * n comes out of adding 1.5 · 2²³, which leaves the rounded integer in the low bits; the polynomial for eʳ is Cephes'.
 */
export function exp(f: WasmFunction, v: Lanes, x: Vector): Vector {
  const low = f.splat(-86.6), high = f.splat(88.7228391116729), magic = f.splat(12582912);
  const clamped = v.min(v.max(x, low), high);
  const shifted = v.madd(clamped, f.splat(Math.LOG2E), magic), n = v.sub(shifted, magic);
  const r = v.nmadd(n, f.splat(-2.12194440e-4), v.nmadd(n, f.splat(0.693359375), clamped));
  const p = polynomial(f, v, r, [
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
  ]);
  const mantissa = v.add(v.madd(v.mul(p, r), r, r), f.splat(1));
  // 2ⁿ⁻¹ by adding to the exponent, then twice that: n reaches 128, which no exponent holds.
  const half = v.addI32(mantissa, v.shl(v.subI32(shifted, f.splatI32(1)), 23));
  return v.andNot(v.select(v.le(x, high), v.add(half, half), v.max(x, f.splat(Infinity))), v.lt(x, low));
}
