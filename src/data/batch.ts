import { DataError } from "../errors.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { Tokens } from "./tokens.ts";

/** A batch of B blocks of T tokens. */
export interface Batch {
  /** (B, T) token ids */
  x: Int32Array<ArrayBuffer>;
  /** (B, T) targets: for each id in x, the id that follows it in the data */
  y: Int32Array<ArrayBuffer>;
  /** (B) position in the data at which each block starts; `batchAt` makes the same batch from these positions */
  offsets: number[];
}

/**
 * Draws a batch of blocks from random positions, like nanoGPT's `get_batch`. One `randint` is drawn per row. So with
 * the same data and the same state of the generator, the batches equal nanoGPT's.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { RandomGenerator } from "../random/mod.ts";
 * import { getBatch } from "./batch.ts";
 *
 * const data = Int32Array.from({ length: 1000 }, (_, i) => i);
 * const { x, y } = getBatch(data, { blockSize: 4, batchSize: 2, generator: new RandomGenerator(1337) });
 * assertEquals(x.length, 8);
 * assertEquals(y, x.map((id) => id + 1));
 * ```
 *
 * @param data token ids
 * @param options.blockSize tokens in a row
 * @param options.batchSize rows
 * @throws {DataError} when the data have `blockSize` tokens or fewer
 */
export function getBatch(
  data: Tokens,
  { blockSize, batchSize, generator }: { blockSize: number; batchSize: number; generator: RandomGenerator },
): Batch {
  if (data.length <= blockSize) {
    throw new DataError(`A batch with block_size=${blockSize} needs more than ${data.length} tokens of data`);
  }
  const offsets = Array.from({ length: batchSize }, () => generator.randint(data.length - blockSize));
  return batchAt(data, offsets, { blockSize });
}

/**
 * The batch whose blocks start at the given positions.
 *
 * @throws {DataError} when a block would reach beyond the data
 */
export function batchAt(data: Tokens, offsets: number[], { blockSize }: { blockSize: number }): Batch {
  const x = new Int32Array(offsets.length * blockSize), y = new Int32Array(x.length);
  offsets.forEach((start, row) => {
    if (!(Number.isInteger(start) && start >= 0 && start + blockSize < data.length)) {
      throw new DataError(`No block of ${blockSize} tokens at ${start}: the data have ${data.length}`);
    }
    const ids = data.subarray(start, start + blockSize + 1);
    x.set(ids.subarray(0, blockSize), row * blockSize);
    y.set(ids.subarray(1), row * blockSize);
  });
  return { x, y, offsets };
}
