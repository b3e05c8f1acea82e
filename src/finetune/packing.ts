/**
 * Rows laid side by side in bins, so that little of a batch is padding: best fit, the longest rows first (Ding et al. 2024,
 * arXiv:2404.10830), as TRL's `pack_dataset` with the strategy `bfd`.
 *
 * A row is never split, and one that is longer than a bin is for the caller to cut. That rows in one bin do not see each other is
 * attention's business: see `starts` in causal_self_attention.ts.
 */

/** How many rows TRL packs at once: its bins never hold rows of two such groups. */
const ROWS_AT_ONCE = 1000;

/**
 * Packs rows into bins. The longest row goes first, each into the bin with the least room that is enough, of several the one that
 * has had this room for longest; where there is no such bin, it opens one.
 *
 * @param lengths of the rows, in tokens; an empty row is in no bin, and one above `maxLength` takes a whole bin
 * @param maxLength of a bin, in tokens
 * @param options.rowsAtOnce rows that are packed together; default 1000, TRL's
 * @returns the numbers of each bin's rows, in the order in which they stand in it
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { packBestFit } from "@nanogpt/ts/finetune";
 *
 * assertEquals(packBestFit([5, 2, 3, 1], 4), [[0], [2, 3], [1]]);
 * ```
 */
export function packBestFit(
  lengths: ArrayLike<number>,
  maxLength: number,
  { rowsAtOnce = ROWS_AT_ONCE }: { readonly rowsAtOnce?: number } = {},
): number[][] {
  const bins: number[][] = [];
  for (let begin = 0; begin < lengths.length; begin += rowsAtOnce) {
    const size = Math.min(rowsAtOnce, lengths.length - begin);
    const rows = Array.from({ length: size }, (_, i) => {
      return { row: begin + i, length: Math.min(lengths[begin + i], maxLength) };
    });
    bins.push(...pack(rows.filter(({ length }) => length > 0), maxLength));
  }
  return bins;
}

function pack(rows: { readonly row: number; readonly length: number }[], maxLength: number): number[][] {
  const bins: number[][] = [];
  /** By the room that is left: the bins that have it, in the order in which they came to it. */
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
