/**
 * Weights in 8 bits as GGUF's q8_0 has them: blocks of 32 numbers, each d · q with q an integer from −128 to 127 and one scale d, an
 * f16, for the block. In a file a block is 34 bytes: d, then the q's in order.
 *
 * Quantising is that of `gguf.quants` (PyPI `gguf`): d is the greatest magnitude / 127, and q is x · (1 / d), rounded to the nearest,
 * halves away from zero, both in f32; then d is rounded to an f16. Widening is exact: 11 bits by 8 are fewer than the 24 of an f32.
 */
import { DeviceError } from "../errors.ts";
import { Q8 } from "../wasm/packing.ts";

export { Q8 };

/**
 * @param values a multiple of 32 of them
 * @throws {DeviceError} when one is not finite, or beyond 8.3 million, for which no f16 is large enough
 */
export function f32ToQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const count = values.length / Q8.numbers, out = new Uint8Array(Q8.bytes * count), view = new DataView(out.buffer);
  for (let block = 0, at = 0; block < count; block++, at += Q8.numbers) {
    let greatest = 0;
    for (let i = at; i < at + Q8.numbers; i++) greatest = Math.max(greatest, Math.abs(values[i]));
    const d = Math.fround(greatest / 127), inverse = d === 0 ? 0 : Math.fround(1 / d), to = Q8.bytes * block;
    if (!(Math.f16round(d) < Infinity)) {
      throw new DeviceError(`write: q8_0 cannot store ${greatest}: weights are finite, and at most 8.3 million`);
    }
    view.setFloat16(to, d, true);
    for (let i = 0; i < Q8.numbers; i++) {
      const x = Math.fround(values[at + i] * inverse);
      out[to + 2 + i] = Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
    }
  }
  return out;
}

/** @param blocks as they are in a file */
export function q8ToF32(blocks: Uint8Array): Float32Array<ArrayBuffer> {
  const count = blocks.length / Q8.bytes, out = new Float32Array(Q8.numbers * count);
  const view = new DataView(blocks.buffer, blocks.byteOffset),
    integers = new Int8Array(blocks.buffer, blocks.byteOffset);
  for (let block = 0, at = 0; block < count; block++) {
    const from = Q8.bytes * block, d = view.getFloat16(from, true);
    for (let i = 2; i < Q8.bytes; i++) out[at++] = d * integers[from + i];
  }
  return out;
}

/** Blocks of a file as their integers, in order, and their scales, as f32; and back: how kernels like them that read no bytes. */
export function splitQ8(blocks: Uint8Array): { integers: Uint8Array<ArrayBuffer>; scales: Float32Array<ArrayBuffer> } {
  const count = blocks.length / Q8.bytes, view = new DataView(blocks.buffer, blocks.byteOffset);
  const integers = new Uint8Array(Q8.numbers * count), scales = new Float32Array(count);
  for (let block = 0, from = 0; block < count; block++, from += Q8.bytes) {
    scales[block] = view.getFloat16(from, true);
    integers.set(blocks.subarray(from + 2, from + Q8.bytes), Q8.numbers * block);
  }
  return { integers, scales };
}

export function joinQ8(integers: Uint8Array, scales: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = new Uint8Array(Q8.bytes * scales.length), view = new DataView(blocks.buffer);
  scales.forEach((scale, block) => {
    view.setFloat16(Q8.bytes * block, scale, true);
    blocks.set(integers.subarray(Q8.numbers * block, Q8.numbers * (block + 1)), Q8.bytes * block + 2);
  });
  return blocks;
}
