/**
 * The error function in f64, 2 / √π · ∫₀ˣ exp(−t²) dt, to 15 digits: Abramowitz and Stegun 1964, formula 7.1.6,
 *
 *     erf x = 2 / √π · exp(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1 · 3 · 5 ⋯ (2n + 1)),
 *
 * whose terms all have the same sign, so that nothing cancels. It is readable, not fast; kernels have faster
 * approximations.
 */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x); // nearer to 1 than 1e-16
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= 2 * x * x / (2 * n + 1);
    sum += term;
  }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}
