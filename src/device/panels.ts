/**
 * The layout of a matrix in panels in the CPU's memory. A panel holds `width` rows.
 *
 * - f32 and bf16: element 0 of all rows, then element 1 of all rows, and so on.
 * - q8_0: block 0 of all rows, then block 1 of all rows, and so on. Block i of all rows is stored as the scale of each
 *   row, then elements 0 and 1 of each row, then elements 2 and 3 of each row, and so on.
 *
 * If the number of rows is not a multiple of `width`, the rest of the last panel is padding, which no product uses.
 */
import { Q8_0 } from "../engine/q8_0.ts";
import type { Panels } from "../kernel.ts";

type Elements = Float32Array | Uint16Array;

/**
 * Visits `count` elements of the matrix in row-major order, starting with element `offset`, in runs that do not cross a
 * row. Calls `move(place, at, n)` for each run: `n` is the number of its elements, `place` the index of the first one in
 * `memory`, and `at` the number of elements visited before.
 */
function runs(
  { length, width }: Panels,
  offset: number,
  count: number,
  move: (place: number, at: number, n: number) => void,
) {
  for (let at = 0; at < count;) {
    const row = Math.floor((offset + at) / length), k = (offset + at) % length, n = Math.min(length - k, count - at);
    move((row - row % width) * length + k * width + row % width, at, n);
    at += n;
  }
}

/** Writes row-major `values` to the matrix, from element `offset` on. @param memory the memory of the whole block */
export function toPanels<T extends Elements>(
  memory: T,
  panels: Panels,
  offset: number,
  values: ArrayLike<number>,
): void {
  const { width } = panels;
  runs(panels, offset, values.length, (place, at, n) => {
    for (let i = at; i < at + n; i++, place += width) memory[place] = values[i];
  });
}

/** Reads elements of the matrix in row-major order, from element `offset` on, into `out`. */
export function fromPanels<T extends Elements>(memory: T, panels: Panels, offset: number, out: T): T {
  const { width } = panels;
  runs(panels, offset, out.length, (place, at, n) => {
    for (let i = at; i < at + n; i++, place += width) out[i] = memory[place];
  });
  return out;
}

/** Copies q8_0 blocks to or from panels: calls `move` with the index of each byte in `memory` and in the blocks. */
export function q8Places(
  { length, width }: Panels,
  offset: number,
  blocks: number,
  move: (place: number, at: number) => void,
): void {
  for (let block = 0, at = 0; block < blocks; block++) {
    const element = offset + Q8_0.block * block, row = Math.floor(element / length), column = row % width;
    const first = ((row - column) * length + element % length * width) / Q8_0.block * Q8_0.bytes;
    for (let i = 0; i < 2; i++) move(first + 2 * column + i, at++);
    for (let k = 0; k < Q8_0.block; k++) move(first + 2 * width * (1 + (k >> 1)) + 2 * column + k % 2, at++);
  }
}
