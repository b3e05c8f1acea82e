/**
 * Byte-pair encoding: repeatedly merges the two neighbours with the lowest rank, the leftmost first, until no
 * neighbours can be merged (Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units",
 * 2016).
 *
 * Possible merges are stored in a heap, so n bytes take O(n log n) steps. Searching for the lowest rank after every
 * merge would take O(n²) steps.
 *
 * @param length number of bytes in the piece
 * @param rank returns the rank of merging the bytes from `start` to `middle` with the bytes from `middle` to `end`, or
 *   undefined if they cannot be merged
 * @returns start of each part, followed by `length`
 */
export function mergePairs(
  length: number,
  rank: (start: number, middle: number, end: number) => number | undefined,
): number[] {
  // Linked lists of parts. Each part is identified by its start.
  const next = new Int32Array(length + 1), previous = new Int32Array(length + 1), ranks = new Int32Array(length);
  const heap = new Heap();

  /** Adds the merge of the part at `start` with its right neighbour to the heap. */
  const consider = (start: number) => {
    const middle = next[start], found = middle < length ? rank(start, middle, next[middle]) : undefined;
    ranks[start] = found ?? -1;
    if (found !== undefined) heap.push(found * POSITIONS + start);
  };
  for (let i = 0; i <= length; i++) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (let i = 0; i < length; i++) consider(i);
  while (heap.size > 0) {
    const candidate = heap.pop(), start = candidate % POSITIONS;
    if (ranks[start] !== (candidate - start) / POSITIONS) continue; // one of the two parts has already been merged
    const middle = next[start], end = next[middle];
    next[start] = end;
    previous[end] = start;
    ranks[middle] = -1;
    consider(start);
    if (start > 0) consider(previous[start]);
  }
  const starts: number[] = [];
  for (let i = 0; i < length; i = next[i]) starts.push(i);
  starts.push(length);
  return starts;
}

/** Positions are below 2^31 and ranks below 2^21, so a rank and a position together fit into one exact number. */
const POSITIONS = 2 ** 31;

/** A binary heap, which returns the smallest number first. */
class Heap {
  readonly #items: number[] = [];

  get size(): number {
    return this.#items.length;
  }

  push(item: number): void {
    const items = this.#items;
    let i = items.length;
    for (let parent; i > 0 && items[parent = (i - 1) >> 1] > item; i = parent) items[i] = items[parent];
    items[i] = item;
  }

  pop(): number {
    const items = this.#items, least = items[0], last = items.pop()!;
    if (items.length === 0) return least;
    let i = 0;
    for (let child; (child = 2 * i + 1) < items.length; i = child) {
      if (child + 1 < items.length && items[child + 1] < items[child]) child++;
      if (items[child] >= last) break;
      items[i] = items[child];
    }
    items[i] = last;
    return least;
  }
}
