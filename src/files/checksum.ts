/**
 * A checksum of 32-bit integers: 32-bit FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/). A million integers take 2
 * ms. The checksum detects accidental changes, but does not protect against deliberate changes.
 */
export class Checksum {
  #hash = 0x811c9dc5;

  /** Adds every `step`-th number, starting with the first. */
  add(numbers: ArrayLike<number>, step = 1): void {
    let hash = this.#hash;
    for (let i = 0; i < numbers.length; i += step) hash = Math.imul(hash ^ numbers[i], 0x01000193);
    this.#hash = hash;
  }

  /** The checksum of all numbers added so far, as eight hexadecimal digits. */
  toString(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }
}
