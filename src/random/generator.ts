import { CheckpointError } from "../errors.ts";
import { MersenneTwister } from "./mersenne_twister.ts";
import { normalBlock } from "./normal.ts";

/** State of a generator as plain data, for a checkpoint's JSON. */
export interface GeneratorState {
  /** The 624 words of MT19937. */
  words: number[];
  /** Number of words already used. */
  index: number;
  /**
   * Normal numbers are drawn in pairs: the second number of a pair, saved for the next draw of fewer than 16 numbers,
   * or null.
   */
  cachedNormal: number | null;
}

/**
 * PyTorch's CPU generator: with the same seed, the same calls return the same numbers as `torch.Generator`.
 *
 * Every draw takes 32-bit words from one Mersenne Twister in PyTorch's order. Initial weights, batches and sampled
 * tokens are therefore nanoGPT's, number by number. Draws fill arrays in place and allocate nothing.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { RandomGenerator } from "./generator.ts";
 *
 * const generator = new RandomGenerator(1337); // torch.manual_seed(1337)
 * const normals = new Float32Array(4); // torch.randn(4)
 * generator.normal(normals);
 * assertEquals(normals, Float32Array.of(-2.0259921550750732, -2.0655088424682617, -1.2053627967834473, -0.9122241139411926));
 * ```
 */
export class RandomGenerator {
  #twister: MersenneTwister;
  #cachedNormal: number | null = null;

  /**
   * Makes a generator in the state after `torch.manual_seed(seed)`.
   *
   * @param seed any integer; only its low 32 bits are used, as in PyTorch
   */
  constructor(seed: number | bigint) {
    this.#twister = new MersenneTwister(Number(BigInt.asUintN(32, BigInt(seed))));
  }

  /** Returns the next 32-bit word, an integer from 0 to 2³² − 1. */
  random32(): number {
    return this.#twister.next();
  }

  /** Fills with uniform numbers from `from` to `to`, which only rounding can reach: `out.uniform_(from, to)`. */
  uniform(out: Float32Array, from = 0, to = 1): void {
    const twister = this.#twister, low = Math.fround(from), range = Math.fround(Math.fround(to) - low);
    for (let i = 0; i < out.length; i++) out[i] = (twister.next() & 0xffffff) * 2 ** -24 * range + low;
  }

  /**
   * Fills with normal numbers: `out.normal_(mean, std)`, bit for bit on x86-64 with AVX2 (see `normal.ts`).
   *
   * An array of at least 16 numbers is computed in blocks of 16 in float32; if the last block is incomplete, the last
   * 16 numbers are drawn again. Fewer than 16 numbers are computed in pairs in float64; an unused second number of a
   * pair is saved for the next such call.
   */
  normal(out: Float32Array, mean = 0, std = 1): void {
    const n = out.length;
    if (n < 16) {
      for (let i = 0; i < n; i++) out[i] = this.#normal64() * std + mean;
      return;
    }
    mean = Math.fround(mean);
    std = Math.fround(std);
    this.uniform(out);
    for (let start = 0; start + 16 <= n; start += 16) normalBlock(out, start, mean, std);
    if (n % 16 !== 0) {
      this.uniform(out.subarray(n - 16));
      normalBlock(out, n - 16, mean, std);
    }
  }

  /**
   * Draws an integer from 0 to high − 1: `torch.randint(high, ())`.
   *
   * @param high from 1 to 2⁵³
   * @throws {RangeError} when high is not such an integer
   */
  randint(high: number): number {
    if (!(Number.isInteger(high) && high >= 1 && high <= 2 ** 53)) {
      throw new RangeError(`randint needs an integer from 1 to 2^53, not ${high}`);
    }
    const word = this.#twister.next();
    if (high < 2 ** 28) return word % high;
    return Number((BigInt(word) << 32n | BigInt(this.#twister.next())) % BigInt(high));
  }

  /** Returns the integers from 0 to n − 1 in random order: `torch.randperm(n)`. */
  randperm(n: number): Int32Array {
    const order = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = 0; i < n - 1; i++) {
      const j = i + this.#twister.next() % (n - i);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  /**
   * Fills with exponential numbers of rate 1: `out.exponential_()`.
   *
   * `torch.multinomial(p, 1)` is the index of the largest p / q in float32, where q is drawn this way. (On Intel
   * processors PyTorch draws q with another library, and its numbers differ.)
   */
  exponential(out: Float32Array): void {
    for (let i = 0; i < out.length; i++) out[i] = -Math.log1p(-this.#uniform64());
  }

  /** Skips the words of `count` exponential numbers. */
  skipExponential(count: number): void {
    this.#twister.skip(2 * count);
  }

  /** Returns the state as an object for JSON, to be restored by `setState`. */
  getState(): GeneratorState {
    const { words, index } = this.#twister, copy: number[] = [];
    for (let i = 0; i < words.length; i++) copy.push(words[i]); // eight times as fast as [...words]; it runs for every token
    return { words: copy, index, cachedNormal: this.#cachedNormal };
  }

  /**
   * Restores a state returned by `getState`.
   *
   * @throws {CheckpointError} when the object is not the state of a generator
   */
  setState(state: GeneratorState): void {
    const { words, index, cachedNormal } = state ?? {}; // not trusted: the state may come from a file
    const isWord = (word: unknown) => typeof word === "number" && word >>> 0 === word;
    const twister = this.#twister;
    if (
      !Array.isArray(words) || words.length !== twister.words.length || !words.every(isWord) ||
      !isWord(index) || index > words.length || (cachedNormal !== null && !Number.isFinite(cachedNormal))
    ) {
      throw new CheckpointError(
        "Not the state of a random generator; expected 624 words, an index and a cached normal",
      );
    }
    twister.words.set(words);
    twister.index = index;
    this.#cachedNormal = cachedNormal;
  }

  /** A uniform float64 in [0, 1), made from the low 53 bits of two words; the high word is drawn first. */
  #uniform64(): number {
    const high = this.#twister.next() & 0x1fffff;
    return (high * 2 ** 32 + this.#twister.next()) * 2 ** -53;
  }

  #normal64(): number {
    if (this.#cachedNormal !== null) {
      const normal = this.#cachedNormal;
      this.#cachedNormal = null;
      return normal;
    }
    const theta = 2 * Math.PI * this.#uniform64();
    const radius = Math.sqrt(-2 * Math.log1p(-this.#uniform64()));
    this.#cachedNormal = radius * Math.sin(theta);
    return radius * Math.cos(theta);
  }
}
