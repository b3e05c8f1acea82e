/**
 * GELU on lanes, in terms of a = |x|, so that what is computed is small and its error with it: below 1.3e-7 forward, 2e-7
 * backward, whatever x. For the exact GELU
 *
 *     y = max(x, 0) − a · Q(a),  y′ = k(a) for x < 0, else 1 − k(a),  with Q(a) = 1 − Φ(a) and k(a) = Q(a) − a · Φ′(a).
 *
 * Q(a) is p(a)⁻⁴, and k(a) is exp(−a² / 2) · s(a): minimax polynomials (Remez's exchange, by Lawson's weights, coefficients
 * rounded to f32 one after another).
 */
import type { Lanes, Locals, Vector, WasmFunction } from "../../src/wasm/assembler.ts";
import { CUBIC, SQRT_2_OVER_PI } from "./kernel.ts";

/** |a · p(a)⁻⁴ − a · Q(a)| < 5e-8; highest power first. */
// deno-fmt-ignore
const TAIL = [
  7.160708719311515e-6, -8.309707482112572e-5, 4.846530500799417e-4, -1.4626834308728576e-3, 3.314717672765255e-3,
  -2.0723131019622087e-3, 9.400106966495514e-3, 2.984815649688244e-2, 0.11866887658834457, 0.23716391623020172,
  1.189209222793579,
];
/** |exp(−a² / 2) · s(a) − k(a)| < 7e-8. */
// deno-fmt-ignore
const SLOPE = [
  1.6363094346161233e-6, -3.5290409869048744e-5, 3.4035928547382355e-4, -1.9771847873926163e-3, 7.9457126557827e-3,
  -2.4323580786585808e-2, 6.116390600800514e-2, -0.1325187385082245, 0.24991823732852936, -0.7978789806365967,
  0.4999999403953552,
];
/** 2ʳ for |r| ≤ ½, relative error 1.2e-7. */
// deno-fmt-ignore
const POWER = [
  1.3415367575362325e-3, 9.680663235485554e-3, 5.5502768605947495e-2, 0.240219846367836, 0.6931472420692444,
  1.0000001192092896,
];

/** What is made before a loop and used in its body. */
type Unary = (v: Lanes, x: Vector) => Vector;

function polynomial(f: WasmFunction, coefficients: readonly number[]): Unary {
  const [first, ...rest] = coefficients.map((c) => f.splat(c));
  return (v, x) => rest.reduce((sum, c) => v.madd(sum, x, c), first);
}

/** 2ˣ for −126 ≤ x ≤ 0: the whole part of x goes to the exponent, out of the low bits of x + 1.5 · 2²³. */
function exp2(f: WasmFunction): Unary {
  const magic = f.splat(12582912), power = polynomial(f, POWER);
  return (v, x) => {
    const shifted = v.add(x, magic), r = v.sub(x, v.sub(shifted, magic));
    return v.addI32(power(v, r), v.shl(shifted, 23));
  };
}

/** Beyond it, what is subtracted is below the least normal float; an exponent stays in range. */
const FAR = 12.9, FAR_TANH = 9.9;

type Forward = Locals<"x" | "y" | "begin" | "end">;
type Backward = Locals<"dy" | "x" | "dx" | "begin" | "end">;

/** y = max(x, 0) − tail(|x|). */
function forward(f: WasmFunction, { x, y, begin, end }: Forward, tail: Unary): void {
  const zero = f.splat(0);
  f.forEach(begin, end, (at, v) => {
    const value = v.load(x, at);
    v.store(y, at, v.sub(v.max(value, zero), tail(v, v.abs(value))));
  });
}

/** dx += dy · (x < 0 ? k(|x|) : 1 − k(|x|)). */
function backward(f: WasmFunction, { dy, x, dx, begin, end }: Backward, k: Unary): void {
  const zero = f.splat(0), one = f.splat(1);
  f.forEach(begin, end, (at, v) => {
    const value = v.load(x, at), incoming = v.load(dy, at), slope = k(v, v.abs(value));
    v.accumulate(dx, at, v.mul(incoming, v.select(v.lt(value, zero), slope, v.sub(one, slope))));
  });
}

export function geluErfForward(f: WasmFunction, of: Forward): void {
  const root = polynomial(f, TAIL);
  forward(f, of, (v, a) => {
    const p = root(v, a), squared = v.mul(p, p);
    return v.div(a, v.mul(squared, squared));
  });
}

export function geluErfBackward(f: WasmFunction, of: Backward): void {
  const slope = polynomial(f, SLOPE), power = exp2(f), far = f.splat(FAR), scale = f.splat(-0.5 * Math.LOG2E);
  backward(f, of, (v, magnitude) => {
    const a = v.min(magnitude, far);
    return v.mul(power(v, v.mul(v.mul(a, a), scale)), slope(v, a));
  });
}

/** With u as in kernel.ts, ½ (1 + tanh u) = 1 − e / (1 + e) for e = exp(−2u): gives min(a, far), a², e and 1 / (1 + e). */
function sigmoid(f: WasmFunction) {
  const scale = -2 * SQRT_2_OVER_PI * Math.LOG2E, [linear, cubic] = [f.splat(scale), f.splat(scale * CUBIC)];
  const far = f.splat(FAR_TANH), one = f.splat(1), power = exp2(f);
  return (v: Lanes, magnitude: Vector) => {
    const a = v.min(magnitude, far), squared = v.mul(a, a), e = power(v, v.mul(a, v.madd(squared, cubic, linear)));
    return { a, squared, e, sum: v.add(one, e) };
  };
}

export function geluTanhForward(f: WasmFunction, of: Forward): void {
  const at = sigmoid(f);
  forward(f, of, (v, magnitude) => {
    const { a, e, sum } = at(v, magnitude);
    return v.div(v.mul(a, e), sum);
  });
}

/** k(a) = e / (1 + e) · (1 − a · 2u′ / (1 + e)). */
export function geluTanhBackward(f: WasmFunction, of: Backward): void {
  const at = sigmoid(f), one = f.splat(1);
  const [constant, square] = [f.splat(2 * SQRT_2_OVER_PI), f.splat(6 * SQRT_2_OVER_PI * CUBIC)];
  backward(f, of, (v, magnitude) => {
    const { a, squared, e, sum } = at(v, magnitude), rest = v.div(one, sum);
    const slope = v.mul(a, v.madd(squared, square, constant));
    return v.mul(v.mul(e, rest), v.nmadd(v.mul(slope, rest), one, one));
  });
}
