/**
 * Where the elements of a matrix in panels stand in the CPU's memory. A panel holds `width` rows side by side: element by element of
 * f32 and bf16. Of q8_0 it holds block by block: the scales of the rows, then pairs of neighbours k and k + 1, row by row. Behind the
 * last row, the last panel holds what no product looks at.
 */
import { Q8_0 } from "../engine/q8_0.ts";
import type { Panels } from "../kernel.ts";

type Elements = Float32Array | Uint16Array;

/** Calls `move` for each row's run of elements from `offset` on: first place in `memory`, first of the run, how many. */
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

/** Puts elements `offset` and on of the matrix into their places. @param memory of the whole block */
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

/** Takes them out, row by row. */
export function fromPanels<T extends Elements>(memory: T, panels: Panels, offset: number, out: T): T {
  const { width } = panels;
  runs(panels, offset, out.length, (place, at, n) => {
    for (let i = at; i < at + n; i++, place += width) out[i] = memory[place];
  });
  return out;
}

/** Copies blocks of q8_0 in, or out: calls `move` with the place of each byte in `memory` and in the blocks. */
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
