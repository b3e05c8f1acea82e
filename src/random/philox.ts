/**
 * Philox4x32-10 computes random words as a function of a counter and a key: each element's number can be drawn
 * independently, in any order, on any device. J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", 2011. This is the readable reference; kernels compute the same ten rounds in WASM and
 * WGSL.
 */

/**
 * Computes four random 32-bit words from a counter and a key.
 *
 * Each round multiplies two words of the counter by constants and mixes the high halves of the products with the other
 * two words and the key. Then two further constants are added to the key.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { philox } from "./philox.ts";
 *
 * assertEquals(philox([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
 * ```
 *
 * @param counter four words, the lowest first; only their low 32 bits are used
 * @param key two words: the seed
 * @returns four integers from 0 to 2³² − 1
 */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter, [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0), low0 = Math.imul(0xd2511f53, c0);
    const high1 = multiplyHigh(0xcd9e8d57, c2), low1 = Math.imul(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0];
    k0 = (k0 + 0x9e3779b9) | 0;
    k1 = (k1 + 0xbb67ae85) | 0;
  }
  return [c0 >>> 0, c1 >>> 0, c2 >>> 0, c3 >>> 0];
}

/** The upper 32 bits of the 64-bit product of two unsigned words: schoolbook, on halves of 16 bits. */
function multiplyHigh(a: number, b: number): number {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const carry = a0 * b1 + (middle & 0xffff);
  return a1 * b1 + (middle >>> 16) + (carry >>> 16) | 0;
}
