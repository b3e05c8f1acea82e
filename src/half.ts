/**
 * The two 16-bit floats that weights are stored in, to and from f32: IEEE 754's binary16 (F16: 5 bits of exponent, 10 of fraction)
 * and bfloat16 (BF16: the upper half of an f32, so with its range and 7 bits of fraction).
 *
 * Narrowing rounds to the nearest, ties to even, as PyTorch's `.half()` and `.bfloat16()` do: what is beyond the largest
 * becomes infinite, NaN stays NaN, subnormals stay. Widening is exact. Both are given as their bits, in a Uint16Array.
 */

/** Widens into `out`, which is as long as `bits`. */
export function f16ToF32(
  bits: Uint16Array,
  out: Float32Array<ArrayBuffer> = new Float32Array(bits.length),
): Float32Array<ArrayBuffer> {
  out.set(new Float16Array(bits.buffer, bits.byteOffset, bits.length));
  return out;
}

/** Rounds to the nearest, into `out`, which is as long as `values`. */
export function f32ToF16(
  values: Float32Array,
  out: Uint16Array<ArrayBuffer> = new Uint16Array(values.length),
): Uint16Array<ArrayBuffer> {
  new Float16Array(out.buffer, out.byteOffset, out.length).set(values);
  return out;
}

/** Widens into `out`, which is as long as `bits`. */
export function bf16ToF32(
  bits: Uint16Array,
  out: Float32Array<ArrayBuffer> = new Float32Array(bits.length),
): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(out.buffer, out.byteOffset, bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
  return out;
}

/** Rounds to the nearest, into `out`, which is as long as `values`. */
export function f32ToBf16(
  values: Float32Array,
  out: Uint16Array<ArrayBuffer> = new Uint16Array(values.length),
): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i], isNaN = (word & 0x7fffffff) > 0x7f800000;
    // Half of what is cut off is added, less a little where the last bit that stays is even; a NaN must not become infinite.
    out[i] = isNaN ? word >>> 16 | 0x40 : (word + 0x7fff + (word >>> 16 & 1)) >>> 16;
  }
  return out;
}
