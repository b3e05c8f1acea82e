/** Reads floating-point numbers of several types as f32. */
import { bf16ToF32, f16ToF32 } from "../half.ts";
import { Q8_0, q8ToF32 } from "../engine/q8_0.ts";

/** Fills `bytes` with the tensor's bytes from position `at` on. */
export type ReadBytes = (at: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>;

/**
 * The reader of each type. It fills `out` with a tensor's elements from index `begin` on. 16-bit floats are read into
 * the memory of `out` and converted there, to save memory.
 */
export const FLOAT_READERS = {
  F32: (read, begin, out) => read(4 * begin, new Uint8Array(out.buffer, out.byteOffset, out.byteLength)),
  async F64(read, begin, out) {
    const wide = new Float64Array(out.length);
    await read(8 * begin, new Uint8Array(wide.buffer));
    out.set(wide);
  },
  F16: (read, begin, out) => readHalves(read, begin, { out, widen: f16ToF32 }),
  BF16: (read, begin, out) => readHalves(read, begin, { out, widen: bf16ToF32 }),
  async Q8_0(read, begin, out) {
    const first = Math.floor(begin / Q8_0.block), end = Math.ceil((begin + out.length) / Q8_0.block);
    const blocks = new Uint8Array((end - first) * Q8_0.bytes);
    await read(first * Q8_0.bytes, blocks);
    q8ToF32(blocks, out, begin % Q8_0.block);
  },
} satisfies Record<string, (read: ReadBytes, begin: number, out: Float32Array<ArrayBuffer>) => Promise<void>>;

async function readHalves(
  read: ReadBytes,
  begin: number,
  { out, widen }: { out: Float32Array<ArrayBuffer>; widen: typeof f16ToF32 },
): Promise<void> {
  // The 16-bit values are read into the second half of the memory of `out`. Converting them from the first to the last
  // never overwrites a value that is not converted yet.
  const bits = new Uint16Array(out.buffer, out.byteOffset + 2 * out.length, out.length);
  await read(2 * begin, new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength));
  widen(bits, out);
}
