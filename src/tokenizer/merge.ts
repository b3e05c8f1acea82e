/**
 * Byte-pair encoding: of all neighbours that can be merged, those with the least rank are, the leftmost first, until none can
 * (Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016).
 *
 * Candidates wait in a heap, so that a run of n bytes takes n log n steps: a scan for the least after every merge would take n².
 *
 * @param length how many bytes the piece has
 * @param rank of joining the bytes from `start` to `middle` with those from there to `end`; undefined where they stay apart
 * @returns where each part begins, and at the end `length`
 */
export function mergePairs(
  length: number,
  rank: (start: number, middle: number, end: number) => number | undefined,
): number[] {
  // A part is known by where it begins.
  const next = new Int32Array(length + 1), previous = new Int32Array(length + 1), ranks = new Int32Array(length);
  const heap = new Heap();

  /** Looks at what begins at `start` and its neighbour on the right. */
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
    if (ranks[start] !== (candidate - start) / POSITIONS) continue; // one of the two was merged meanwhile
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

/** Ranks stay below 2^21 and positions below this, so that both fit into one number. */
const POSITIONS = 2 ** 31;

/** The least number first. */
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
