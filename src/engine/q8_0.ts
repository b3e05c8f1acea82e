/**
 * q8_0, llama.cpp's format with eight bits per weight. A row is divided into blocks of 32 weights; a block has a scale
 * d in F16 and 32 integers q from −127 to 127.
 *
 *     d = max |x| / 127,  q = round(x / d),  x ≈ d · q
 *
 * A block takes 34 bytes, the scale first. Quantising gives the same bytes as `gguf.quants` (PyPI) and ggml's reference
 * code: x is multiplied by 1/d in f32, halves round away from zero, and d is rounded to F16 after q is computed. The
 * product d · q is exact in f32: 11 bits times 7 bits.
 */

import { Q8_0 } from "../wasm/packing.ts";
export { Q8_0 };

/**
 * Quantises weights to blocks.
 *
 * @param values weights; their number is a multiple of 32. A weight beyond 127 · 65504 makes its block's scale infinite
 */
export function f32ToQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const { block, bytes } = Q8_0, out = new Uint8Array(values.length / block * bytes);
  const scales = new Float16Array(out.buffer), integers = new Int8Array(out.buffer);
  for (let at = 0, to = 0; at < values.length; at += block, to += bytes) {
    let largest = 0;
    for (let i = 0; i < block; i++) largest = Math.max(largest, Math.abs(values[at + i]));
    const d = Math.fround(largest / 127), inverse = d === 0 ? 0 : Math.fround(1 / d);
    scales[to / 2] = d;
    for (let i = 0; i < block; i++) {
      const x = Math.fround(values[at + i] * inverse), size = Math.abs(x), whole = Math.floor(size);
      integers[to + 2 + i] = Math.sign(x) * (size - whole >= 0.5 ? whole + 1 : whole);
    }
  }
  return out;
}

/**
 * Converts blocks back to f32 weights.
 *
 * @param out array to write to; its length is the number of weights; default: a new one for all weights
 * @param first number of weights to skip at the start of the first block
 * @returns `out`
 */
export function q8ToF32(
  blocks: Uint8Array<ArrayBuffer>,
  out: Float32Array<ArrayBuffer> = new Float32Array(blocks.length / Q8_0.bytes * Q8_0.block),
  first = 0,
): Float32Array<ArrayBuffer> {
  const { block, bytes } = Q8_0, integers = new Int8Array(blocks.buffer, blocks.byteOffset, blocks.length);
  const scales = new Float16Array(blocks.buffer, blocks.byteOffset, blocks.length / 2);
  for (let i = 0, from = 0, at = first; i < out.length; from += bytes, at = 0) {
    const d = scales[from / 2];
    for (; at < block && i < out.length; at++) out[i++] = d * integers[from + 2 + at];
  }
  return out;
}

/** Separates the integers of blocks from their scales (as f32), for kernels that read whole words. */
export function splitQ8(blocks: Uint8Array): { integers: Uint8Array<ArrayBuffer>; scales: Float32Array<ArrayBuffer> } {
  const { block, bytes } = Q8_0, count = blocks.length / bytes, view = new DataView(blocks.buffer, blocks.byteOffset);
  const integers = new Uint8Array(block * count);
  for (let i = 0; i < count; i++) integers.set(blocks.subarray(bytes * i + 2, bytes * (i + 1)), block * i);
  return { integers, scales: Float32Array.from({ length: count }, (_, i) => view.getFloat16(bytes * i, true)) };
}
/** Joins integers and scales into blocks: the inverse of {@linkcode splitQ8}. */
export function joinQ8(integers: Uint8Array, scales: Float32Array): Uint8Array<ArrayBuffer> {
  const { block, bytes } = Q8_0,
    blocks = new Uint8Array(bytes * scales.length),
    halves = new Float16Array(blocks.buffer);
  scales.forEach((scale, i) => {
    halves[bytes / 2 * i] = scale;
    blocks.set(integers.subarray(block * i, block * (i + 1)), bytes * i + 2);
  });
  return blocks;
}
