/**
 * Philox4x32-10 on lanes: computes four words for each counter in a vector, the same words as src/random/philox.ts.
 *
 * Dropout's counters are (element / 4, stream, offset, 0) with the key (seed, 0), so that word j of counter i belongs
 * to element 4i + j. {@linkcode inElementOrder} puts the words into the order of the elements.
 */
import { type I32, Lanes, type Vector, type WasmFunction } from "./assembler.ts";

/** Computes the random words 0 to 3 of each counter. `first` holds the first word of each counter. */
export type Philox = (v: Lanes, first: Vector) => [Vector, Vector, Vector, Vector];

/** Prepares Philox before a loop: computes what is equal for all counters, including half of the first round. */
export function philox(f: WasmFunction, stream: I32, offset: I32, seed: I32): Philox {
  const multipliers = [f.splatI32(0xd2511f53), f.splatI32(0xcd9e8d57)], all = new Lanes(f, 1);
  const keys = Array.from({ length: 10 }, (_, round) => [
    f.splatI32(f.i32.add(seed, Math.imul(round, 0x9e3779b9))),
    f.splatI32(Math.imul(round, 0xbb67ae85)),
  ]);
  /** The upper and lower words of the products. */
  const multiply = (v: Lanes, a: Vector, b: Vector) => [v.mulHigh(a, b), v.mulI32(a, b)];
  const [high, low] = multiply(all, multipliers[1], f.splatI32(offset)); // second product of the first round
  const mixed = all.xor(all.xor(high, f.splatI32(stream)), keys[0][0]);

  return (v, first) => {
    const [high, ...rest] = multiply(v, multipliers[0], first);
    let c: [Vector, Vector, Vector, Vector] = [mixed, low, high, rest[0]]; // word 3 and the second key are 0
    for (const [k0, k1] of keys.slice(1)) {
      const [high0, low0] = multiply(v, multipliers[0], c[0]), [high1, low1] = multiply(v, multipliers[1], c[2]);
      c = [v.xor(v.xor(high1, c[1]), k0), low1, v.xor(v.xor(high0, c[3]), k1), low0];
    }
    return c;
  };
}

/**
 * Puts the words of eight counters, i to i + 7, into the order of the elements 4i to 4i + 31 that they belong to.
 * Returns four vectors of eight.
 */
export function inElementOrder(v: Lanes, words: readonly Vector[]): Vector[] {
  const [a, b, c, d] = words;
  const [ab, cd] = [[a, b], [c, d]].map(([a, b]) => [v.shuffle(a, b, [0, 4, 1, 5]), v.shuffle(a, b, [2, 6, 3, 7])]);
  // For each half of four counters: the words of counters 0, 1, 2 and 3.
  const [zero, two] = [0, 1].map((i) => v.shuffle(ab[i], cd[i], [0, 1, 4, 5]));
  const [one, three] = [0, 1].map((i) => v.shuffle(ab[i], cd[i], [2, 3, 6, 7]));
  return [[zero[0], one[0]], [two[0], three[0]], [zero[1], one[1]], [two[1], three[1]]];
}
