import { assertEquals } from "@std/assert";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../../src/half.ts";

const all = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** The value of 16 bits in a format with the given number of exponent bits: sign · 2^exponent · significand. */
function valueOf(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits, bias = 2 ** (exponentBits - 1) - 1;
  const sign = bits >> 15 ? -1 : 1, exponent = bits >> fractionBits & 2 ** exponentBits - 1;
  const fraction = (bits & 2 ** fractionBits - 1) / 2 ** fractionBits;
  if (exponent === 2 ** exponentBits - 1) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction) * 2 ** (exponent - bias) : fraction * 2 ** (1 - bias));
}

for (
  const { name, exponentBits, widen, narrow } of [
    { name: "F16", exponentBits: 5, widen: f16ToF32, narrow: f32ToF16 },
    { name: "BF16", exponentBits: 8, widen: bf16ToF32, narrow: f32ToBf16 },
  ]
) {
  const expected = Float32Array.from(all, (bits) => valueOf(bits, exponentBits));

  Deno.test(`${name}: all 65,536 bit patterns widen to their value, and narrow back`, () => {
    const wide = widen(all);
    assertEquals(wide, expected);
    assertEquals(Object.is(wide[0x8000], -0), true);
    const back = narrow(wide);
    for (const bits of all) {
      if (Number.isNaN(expected[bits])) assertEquals(valueOf(back[bits], exponentBits), NaN);
      else assertEquals(back[bits], bits);
    }
  });

  Deno.test(`${name}: ties round to even, all other values to nearest`, () => {
    const values: number[] = [], bits: number[] = [];
    const largest = 2 ** 15 - 2 ** (15 - exponentBits) - 1; // the largest finite number
    for (let low = 0; low < largest; low += 7) {
      const [a, b] = [expected[low], expected[low + 1]], middle = (a + b) / 2; // exact in f64: it needs one more bit
      const [below, above] = [a + (b - a) * 0.4990234375, a + (b - a) * 0.5009765625];
      values.push(below, middle, above, -middle);
      const even = low % 2 === 0 ? low : low + 1;
      bits.push(low, even, low + 1, even | 0x8000);
    }
    const floats = Float32Array.from(values);
    // Some values next to the middle are not f32: f32 is too coarse near the least values of BF16, which are subnormal.
    const exact = values.map((value, i) => floats[i] === value);
    assertEquals([...narrow(floats)].filter((_, i) => exact[i]), bits.filter((_, i) => exact[i]));
    assertEquals(exact.filter(Boolean).length > 0.9 * exact.length, true);
  });

  Deno.test(`${name}: numbers become infinite from half a step above the largest finite one`, () => {
    const infinite = 2 ** 15 - 2 ** (15 - exponentBits), largest = expected[infinite - 1];
    const step = largest - expected[infinite - 2], limit = largest + step / 2;
    const below = limit - step / 64, values = Float32Array.of(limit, -limit, below, -below, Infinity, -Infinity);
    const [a, b, c, d, e, f] = narrow(values), sign = 0x8000;
    assertEquals([a, b, e, f], [infinite, infinite | sign, infinite, infinite | sign]);
    assertEquals([c, d], [infinite - 1, infinite - 1 | sign]);
  });

  Deno.test(`${name}: a part of an array is converted into a part of another`, () => {
    const out = new Float32Array(4), bits = new Uint16Array(4);
    widen(narrow(Float32Array.of(1, 2)), out.subarray(1, 3));
    assertEquals([...out], [0, 1, 2, 0]);
    narrow(out.subarray(1, 3), bits.subarray(2));
    assertEquals([...widen(bits.subarray(2))], [1, 2]);
  });
}
