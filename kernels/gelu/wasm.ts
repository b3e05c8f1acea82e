/**
 * GELU on lanes, in terms of a = |x|. The approximated terms are small, and so is their error: below 1.3e-7 forward and
 * 2e-7 backward, for every x. For the exact GELU:
 *
 *     y = max(x, 0) − a · Q(a),  y′ = k(a) for x < 0, else 1 − k(a),  with Q(a) = 1 − Φ(a) and k(a) = Q(a) − a · Φ′(a).
 *
 * Q(a) is p(a)⁻⁴, and k(a) is exp(−a² / 2) · s(a), where p and s are minimax polynomials (found by Lawson's weighting,
 * with coefficients rounded to f32 one after another).
 */
import type { Lanes, Locals, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { polynomial } from "../../src/wasm/math.ts";

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI), CUBIC = 0.044715;

/** Coefficients of p, highest power first. The error |a · p(a)⁻⁴ − a · Q(a)| is below 5e-8. */
// deno-fmt-ignore
const TAIL = [
  7.160708719311515e-6, -8.309707482112572e-5, 4.846530500799417e-4, -1.4626834308728576e-3, 3.314717672765255e-3,
  -2.0723131019622087e-3, 9.400106966495514e-3, 2.984815649688244e-2, 0.11866887658834457, 0.23716391623020172,
  1.189209222793579,
];
/** Coefficients of s, highest power first. The error |exp(−a² / 2) · s(a) − k(a)| is below 7e-8. */
// deno-fmt-ignore
const SLOPE = [
  1.6363094346161233e-6, -3.5290409869048744e-5, 3.4035928547382355e-4, -1.9771847873926163e-3, 7.9457126557827e-3,
  -2.4323580786585808e-2, 6.116390600800514e-2, -0.1325187385082245, 0.24991823732852936, -0.7978789806365967,
  0.4999999403953552,
];
/** Coefficients of a polynomial for 2ʳ with |r| ≤ ½, highest power first. Its relative error is 1.2e-7. */
// deno-fmt-ignore
const POWER = [
  1.3415367575362325e-3, 9.680663235485554e-3, 5.5502768605947495e-2, 0.240219846367836, 0.6931472420692444,
  1.0000001192092896,
];

/**
 * 2ˣ for −126 ≤ x ≤ 0. Adding 1.5 · 2²³ leaves the whole part of x in the sum's low bits, which become the exponent.
 */
function exp2(f: WasmFunction, v: Lanes, x: Vector): Vector {
  const magic = f.splat(12582912), shifted = v.add(x, magic), r = v.sub(x, v.sub(shifted, magic));
  return v.addI32(polynomial(f, v, r, POWER), v.shl(shifted, 23));
}

/** Above this |x| the subtracted term is less than the least normal float, and exp2 would leave its range. */
const FAR = 12.9, FAR_TANH = 9.9;

/** A function of a = |x|. */
type OfMagnitude = (f: WasmFunction, v: Lanes, a: Vector) => Vector;

/** y = max(x, 0) − tail(|x|). */
const forward = (tail: OfMagnitude) => (f: WasmFunction, { x, y, begin, end }: Locals<"x" | "y" | "begin" | "end">) =>
  f.forEach(begin, end, (at, v) => {
    const value = v.load(x, at);
    v.store(y, at, v.sub(v.max(value, f.splat(0)), tail(f, v, v.abs(value))));
  });

/** dx += dy · (x < 0 ? k(|x|) : 1 − k(|x|)). */
const backward =
  (k: OfMagnitude) => (f: WasmFunction, { dy, x, dx, begin, end }: Locals<"dy" | "x" | "dx" | "begin" | "end">) =>
    f.forEach(begin, end, (at, v) => {
      const value = v.load(x, at), incoming = v.load(dy, at), slope = k(f, v, v.abs(value));
      const derivative = v.select(v.lt(value, f.splat(0)), slope, v.sub(f.splat(1), slope));
      v.accumulate(dx, at, v.mul(incoming, derivative));
    });

export const geluErfForward = forward((f, v, magnitude) => {
  const a = v.min(magnitude, f.splat(1e10)); // there the tail is 1e10 / p⁴ = 0; an infinite a would give NaN
  const p = polynomial(f, v, a, TAIL), squared = v.mul(p, p);
  return v.div(a, v.mul(squared, squared));
});

export const geluErfBackward = backward((f, v, magnitude) => {
  const a = v.min(magnitude, f.splat(FAR)), exponent = v.mul(v.mul(a, a), f.splat(-0.5 * Math.LOG2E));
  return v.mul(exp2(f, v, exponent), polynomial(f, v, a, SLOPE));
});

/** With u as in kernel.ts, ½ (1 + tanh u) = 1 − e / (1 + e) for e = exp(−2u). */
function sigmoid(f: WasmFunction, v: Lanes, magnitude: Vector) {
  const scale = -2 * SQRT_2_OVER_PI * Math.LOG2E, a = v.min(magnitude, f.splat(FAR_TANH)), squared = v.mul(a, a);
  const e = exp2(f, v, v.mul(a, v.madd(squared, f.splat(scale * CUBIC), f.splat(scale))));
  return { a, squared, e, sum: v.add(f.splat(1), e) };
}

export const geluTanhForward = forward((f, v, magnitude) => {
  const { a, e, sum } = sigmoid(f, v, magnitude);
  return v.div(v.mul(a, e), sum);
});

/** k(a) = e / (1 + e) · (1 − a · 2u′ / (1 + e)). */
export const geluTanhBackward = backward((f, v, magnitude) => {
  const { a, squared, e, sum } = sigmoid(f, v, magnitude), one = f.splat(1), rest = v.div(one, sum);
  const slope = v.madd(squared, f.splat(6 * SQRT_2_OVER_PI * CUBIC), f.splat(2 * SQRT_2_OVER_PI)); // 2u′
  return v.mul(v.mul(e, rest), v.nmadd(v.mul(v.mul(a, slope), rest), one, one));
});
