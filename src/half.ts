/**
 * Converts between f32 and the two 16-bit float types of weights: IEEE 754's binary16 (F16: 5 bits of exponent, 10 of
 * fraction) and bfloat16 (BF16: the upper half of an f32, with the exponent's 8 bits and 7 bits of fraction).
 *
 * Narrowing rounds to the nearest, ties to even, as PyTorch's `.half()` and `.bfloat16()` do. Values beyond the largest
 * number become infinite, NaN stays NaN, and subnormals are preserved. Widening is exact. 16-bit values are passed as
 * their bits, in a Uint16Array.
 */

/** Widens F16 to f32, into `out`, which must be as long as `bits`. */
export function f16ToF32(
  bits: Uint16Array,
  out: Float32Array<ArrayBuffer> = new Float32Array(bits.length),
): Float32Array<ArrayBuffer> {
  out.set(new Float16Array(bits.buffer, bits.byteOffset, bits.length));
  return out;
}

/** Rounds f32 to F16, into `out`, which must be as long as `values`. */
export function f32ToF16(
  values: Float32Array,
  out: Uint16Array<ArrayBuffer> = new Uint16Array(values.length),
): Uint16Array<ArrayBuffer> {
  new Float16Array(out.buffer, out.byteOffset, out.length).set(values);
  return out;
}

/** Widens BF16 to f32, into `out`, which must be as long as `bits`. */
export function bf16ToF32(
  bits: Uint16Array,
  out: Float32Array<ArrayBuffer> = new Float32Array(bits.length),
): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(out.buffer, out.byteOffset, bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
  return out;
}

/** Rounds f32 to BF16, into `out`, which must be as long as `values`. */
export function f32ToBf16(
  values: Float32Array,
  out: Uint16Array<ArrayBuffer> = new Uint16Array(values.length),
): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i], isNaN = (word & 0x7fffffff) > 0x7f800000;
    // To round to the nearest, adds half a unit of the last remaining bit, or slightly less if that bit is 0: ties go to
    // even. For a NaN, 0x40 sets a bit of the fraction, without which it could become infinite.
    out[i] = isNaN ? word >>> 16 | 0x40 : (word + 0x7fff + (word >>> 16 & 1)) >>> 16;
  }
  return out;
}
