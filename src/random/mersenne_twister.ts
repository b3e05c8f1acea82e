/**
 * MT19937, the 32-bit Mersenne Twister, on which PyTorch's CPU generator is built: M. Matsumoto and T. Nishimura,
 * "Mersenne Twister: a 623-dimensionally equidistributed uniform pseudo-random number generator", 1998. It is seeded
 * like the authors' `init_genrand`. Seeding with an array is left out, because PyTorch does not use it.
 */
const N = 624, M = 397;

/** A stream of uniform 32-bit words. */
export class MersenneTwister {
  /** The state, from which N output words are computed. */
  readonly words = new Uint32Array(N);
  /** Number of words of the state already used. If it is N, the next draw computes a new state. */
  index = N;

  /** Seeds the state. @param seed an integer; only its low 32 bits are used */
  constructor(seed: number) {
    const { words } = this;
    words[0] = seed;
    for (let i = 1; i < N; i++) {
      const before = words[i - 1];
      words[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  /** Returns the next word, an integer from 0 to 2³² − 1. */
  next(): number {
    if (this.index === N) this.#twist();
    let y = this.words[this.index++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Skips `count` words, five times as fast as drawing them. */
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
    // The indices i + 1 and i + M wrap around at the end of the state. Separate loops avoid the % operator.
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
