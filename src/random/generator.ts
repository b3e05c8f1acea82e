import { CheckpointError } from "../errors.ts";
import { MersenneTwister } from "./mersenne_twister.ts";
import { normalBlock } from "./normal.ts";

/** A generator's state as plain data, for a checkpoint's JSON. */
export interface GeneratorState {
  /** MT19937's 624 words. */
  words: number[];
  /** How many of them are used up. */
  index: number;
  /** The second number of a pair of normals, waiting for the next draw of fewer than 16. */
  cachedNormal: number | null;
}

/**
 * PyTorch's CPU generator: the same seed and the same calls give the same numbers as `torch.Generator`.
 *
 * Every draw consumes 32-bit words of one Mersenne Twister in PyTorch's order, so initialisation, batches and sampling
 * follow nanoGPT's number by number. Arrays are filled in place: there is no allocation for a draw.
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
   * As after `torch.manual_seed(seed)`.
   *
   * @param seed any integer; PyTorch's engine, too, looks at its low 32 bits only
   */
  constructor(seed: number | bigint) {
    this.#twister = new MersenneTwister(Number(BigInt.asUintN(32, BigInt(seed))));
  }

  /** The engine's next word: an integer from 0 to 2³² − 1. */
  random32(): number {
    return this.#twister.next();
  }

  /** Fills with uniform numbers from `from` to `to` (exclusive, but for rounding): `out.uniform_(from, to)`. */
  uniform(out: Float32Array, from = 0, to = 1): void {
    const twister = this.#twister, low = Math.fround(from), range = Math.fround(Math.fround(to) - low);
    for (let i = 0; i < out.length; i++) out[i] = (twister.next() & 0xffffff) * 2 ** -24 * range + low;
  }

  /**
   * Fills with normal numbers: `out.normal_(mean, std)`, bit for bit on x86-64 with AVX2 (see `normal.ts`).
   *
   * From 16 numbers on, blocks of 16 are computed in float32; a last, incomplete one is drawn afresh together with what
   * stands before it. Fewer than 16 are computed in float64, by pairs, the second kept for the next such call.
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
   * One integer from 0 to high − 1: `torch.randint(high, ())`.
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

  /** The integers from 0 to n − 1 in random order: `torch.randperm(n)`. */
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
   * `torch.multinomial(p, 1)` is the index of the largest p / q with such q, in float32. (On Intel processors PyTorch
   * draws q from another library's streams; elsewhere these are its numbers.)
   */
  exponential(out: Float32Array): void {
    for (let i = 0; i < out.length; i++) out[i] = -Math.log1p(-this.#uniform64());
  }

  /** Goes on as if so many exponential numbers had been drawn. */
  skipExponential(count: number): void {
    this.#twister.skip(2 * count);
  }

  /** What `setState` needs to go on from here, as an object that JSON can hold. */
  getState(): GeneratorState {
    const { words, index } = this.#twister, copy: number[] = [];
    for (let i = 0; i < words.length; i++) copy.push(words[i]); // an eighth of the time of [...words]: each token asks
    return { words: copy, index, cachedNormal: this.#cachedNormal };
  }

  /**
   * Goes on from where `getState` was called.
   *
   * @throws {CheckpointError} when it is not a generator's state
   */
  setState(state: GeneratorState): void {
    const { words, index, cachedNormal } = state ?? {}; // it may come from a file
    const isWord = (word: unknown) => typeof word === "number" && word >>> 0 === word;
    const twister = this.#twister;
    if (
      !Array.isArray(words) || words.length !== twister.words.length || !words.every(isWord) ||
      !isWord(index) || index > words.length || (cachedNormal !== null && !Number.isFinite(cachedNormal))
    ) {
      throw new CheckpointError("Not the state of a random generator: 624 words, an index and a cached normal");
    }
    twister.words.set(words);
    twister.index = index;
    this.#cachedNormal = cachedNormal;
  }

  /** Uniform in [0, 1) in float64: the low 53 bits of two words, the high word drawn first. */
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
