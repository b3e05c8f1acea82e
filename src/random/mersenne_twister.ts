/**
 * MT19937, the 32-bit Mersenne Twister, seeded as `init_genrand` seeds it: the engine of PyTorch's CPU generator.
 * M. Matsumoto and T. Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform pseudo-random number
 * generator", 1998. Seeding by an array of keys is left out: PyTorch does not use it.
 */
const N = 624, M = 397;

/** One stream of 32-bit words, each uniform. */
export class MersenneTwister {
  /** The state: what the next N words are tempered from. */
  readonly words = new Uint32Array(N);
  /** Words of the state that are used up; N makes the next draw compute a new state. */
  index = N;

  /** @param seed only its low 32 bits count */
  constructor(seed: number) {
    const { words } = this;
    words[0] = seed;
    for (let i = 1; i < N; i++) {
      const before = words[i - 1];
      words[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  /** @returns the next word, an integer from 0 to 2³² − 1 */
  next(): number {
    if (this.index === N) this.#twist();
    let y = this.words[this.index++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Passes over so many words, at a fifth of the time that drawing them takes. */
  skip(count: number): void {
    while (count > 0) {
      if (this.index === N) this.#twist();
      const some = Math.min(count, N - this.index);
      this.index += some;
      count -= some;
    }
  }

  #twist() {
    const { words } = this;
    // Three loops in place of one with two remainders: the index i + M runs past the end, and so does i + 1.
    for (let i = 0; i < N - M; i++) words[i] = twisted(words[i], words[i + 1], words[i + M]);
    for (let i = N - M; i < N - 1; i++) words[i] = twisted(words[i], words[i + 1], words[i + M - N]);
    words[N - 1] = twisted(words[N - 1], words[0], words[M - 1]);
    this.index = 0;
  }
}

function twisted(upper: number, lower: number, far: number): number {
  const y = (upper & 0x80000000) | (lower & 0x7fffffff);
  return far ^ (y >>> 1) ^ (-(y & 1) & 0x9908b0df);
}
