/**
 * Packs rows into bins, so that little of a batch is padding: best fit decreasing (Ding et al. 2024, arXiv:2404.10830),
 * like TRL's `pack_dataset` with the strategy `bfd`.
 *
 * A row is never split; the caller must cut rows that are longer than a bin. A token attends only to tokens of its own
 * row: see `starts` in causal_self_attention.ts.
 */

/** TRL packs each 1000 successive rows separately, so a bin never holds rows of two such groups. */
const ROWS_AT_ONCE = 1000;

/**
 * Packs rows into bins, longest row first. A row goes into the bin with the least sufficient room; of several such
 * bins, into the bin that has had this room for longest. If no bin has enough room, the row starts a new bin.
 *
 * @param lengths the rows' lengths in tokens; an empty row is left out, and a row longer than `maxLength` fills a bin
 * @param maxLength tokens in a bin
 * @returns for each bin the indices of its rows, in order
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { packBestFit } from "@nanogpt/ts/finetune";
 *
 * assertEquals(packBestFit([5, 2, 3, 1], 4), [[0], [2, 3], [1]]);
 * ```
 */
export function packBestFit(lengths: ArrayLike<number>, maxLength: number): number[][] {
  const bins: number[][] = [];
  for (let begin = 0; begin < lengths.length; begin += ROWS_AT_ONCE) {
    const size = Math.min(ROWS_AT_ONCE, lengths.length - begin);
    const rows = Array.from({ length: size }, (_, i) => {
      return { row: begin + i, length: Math.min(lengths[begin + i], maxLength) };
    });
    bins.push(...pack(rows.filter(({ length }) => length > 0), maxLength));
  }
  return bins;
}

function pack(rows: { readonly row: number; readonly length: number }[], maxLength: number): number[][] {
  const bins: number[][] = [];
  /** `byRoom[r]`: the bins with room for r more tokens, in the order in which they reached this room. */
  const byRoom = Array.from({ length: maxLength + 1 }, (): number[][] => []);
  for (const { row, length } of rows.toSorted((a, b) => b.length - a.length)) {
    let room = length;
    while (room < maxLength && byRoom[room].length === 0) room++;
    let bin = byRoom[room].shift();
    if (!bin || room === maxLength) bins.push(bin = []);
    bin.push(row);
    byRoom[room - length].push(bin);
  }
  return bins;
}
