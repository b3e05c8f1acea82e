/**
 * Normal random numbers in float32, with the same bits as PyTorch's `normal_` on x86-64 processors with AVX2.
 *
 * Box and Muller, "A note on the generation of random normal deviates", 1958: from uniform u1 in (0, 1] and u2 in [0,
 * 1),
 *
 *     √(−2 ln u1) · cos 2πu2   and   √(−2 ln u1) · sin 2πu2
 *
 * are two independent normal numbers. PyTorch computes them in float32, with the polynomials of Moshier's Cephes
 * library for ln, cos and sin. With float64, two of three numbers have other bits (they differ by up to 2e-6), and
 * `Math.log` and `Math.cos` can differ between browsers. So this file takes PyTorch's steps in PyTorch's order: in a
 * test, all of a million numbers had PyTorch's bits. PyTorch without AVX2 (Arm, very old x86) computes other bits.
 */
const f32 = Math.fround;

// A product of two float32 is exact in float64. So f32(a * b + c) is a fused multiply-add (except for a double rounding,
// about once in 2²⁹), and f32(a * b) is a plain product. The choice affects the last bits; it follows PyTorch's binary.

const LN2_HIGH = f32(0.693359375), LN2_LOW = f32(-2.12194440e-4);
// deno-fmt-ignore
const [L0, L1, L2, L3, L4, L5, L6, L7, L8] = Float32Array.of(
  7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
);
const SQRT_HALF = f32(Math.SQRT1_2);
const TWO_PI = f32(2 * Math.PI), FOUR_OVER_PI = f32(4 / Math.PI);
// π/4 as a sum of three parts. The first two have few bits, so their products with an octant number are exact.
const [P0, P1, P2] = Float32Array.of(0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8);
const [C0, C1, C2] = Float32Array.of(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2);
const [S0, S1, S2] = Float32Array.of(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1);

/** ln(k · 2⁻²⁴) in float32, for an integer k from 1 to 2²⁴. */
function logOfUniform(k: number): number {
  // k · 2⁻²⁴ = (1 + x) · 2ᵉ with 1 + x in [√½, √2)
  const places = Math.clz32(k) - 7;
  const m = (k << places) * 2 ** -25;
  const low = m < SQRT_HALF;
  const e = low ? -places : 1 - places;
  const x = low ? 2 * m - 1 : m - 1;
  // ln(1 + x) = x − x²/2 + x³ · polynomial(x)
  const z = f32(x * x);
  let y = f32(L0 * x + L1);
  y = f32(y * x + L2);
  y = f32(y * x + L3);
  y = f32(y * x + L4);
  y = f32(y * x + L5);
  y = f32(y * x + L6);
  y = f32(y * x + L7);
  y = f32(y * x + L8);
  y = f32(f32(y * x) * z + f32(e * LN2_LOW));
  y = f32(y - z * 0.5);
  return f32(e * LN2_HIGH + f32(x + y));
}

/**
 * Turns 16 uniform numbers into 16 normal numbers, in place. The pair out[j] and out[j + 8] is computed from the
 * uniform numbers at the same two indices, for j from start to start + 7.
 *
 * @param out its elements start … start + 15 are multiples of 2⁻²⁴ in [0, 1)
 * @param start index of the block's first number
 */
export function normalBlock(out: Float32Array, start: number, mean: number, std: number): void {
  for (let j = start; j < start + 8; j++) {
    const radius = f32(Math.sqrt(f32(-2 * logOfUniform((1 - out[j]) * 0x1000000))));
    const theta = f32(TWO_PI * out[j + 8]);
    // The nearest even octant, from 0 to 8, and the rest of the angle, within ±π/4.
    const octant = (f32(theta * FOUR_OVER_PI) + 1) & ~1;
    let x = f32(theta - octant * P0);
    x = f32(x - octant * P1);
    x = f32(x - octant * P2);
    const z = f32(x * x);
    let c = f32(C0 * z + C1);
    c = f32(f32(c * z + C2) * z);
    c = f32(f32(c * z - f32(z * 0.5)) + 1);
    let s = f32(S0 * z + S1);
    s = f32(f32(s * z + S2) * z);
    s = f32(s * x + x);
    // The cosine and sine of θ are (c, s), (−s, c), (−c, −s) and (s, −c) in the four quarters.
    const swap = (octant & 2) !== 0;
    const cosine = swap ? s : c, sine = swap ? c : s;
    out[j] = f32(radius * ((octant + 2) & 4 ? -cosine : cosine)) * std + mean;
    out[j + 8] = f32(radius * (octant & 4 ? -sine : sine)) * std + mean;
  }
}
