/**
 * Random numbers with which rows choose tokens: the noise. The host draws it from a generator that one or several rows
 * use.
 */
import type { GeneratorState, RandomGenerator } from "../random/mod.ts";

/** A row that uses noise. */
export interface NoiseUser {
  /** Number of tokens for which the row has taken noise. */
  readonly drawn: number;
  /** Whether the row needs no more noise. */
  readonly over: boolean;
  /** Whether the row's reader has taken all tokens, or has left. */
  readonly done: boolean;
}

/**
 * Noise for rows that share a generator. Noise for token t of all rows is drawn at once, as `torch.multinomial` does
 * for a batch, when the first row needs it.
 */
export class Noise {
  readonly rows: NoiseUser[] = [];
  /** By the number of a token: the noise for that token, (rows, V), until all rows have used it. */
  readonly #ahead = new Map<number, Float32Array>();
  /** Element i is the generator's state before it drew the noise of token number `#settled` + i. */
  readonly #states: GeneratorState[] = [];
  #settled = 0;
  #drawn = 0;

  /**
   * @param isForeign whether the caller passed the generator and may use it afterwards. At the end, the generator's
   *   state then depends only on the number of tokens that were taken.
   */
  constructor(readonly generator: RandomGenerator, readonly isForeign: boolean) {}

  /** Fills `into` with the noise for a row's token number `t`, from 0. */
  fill(into: Float32Array, row: NoiseUser, t: number): void {
    const V = into.length, count = this.rows.length;
    let values = this.#ahead.get(t);
    if (t === this.#drawn) {
      if (this.isForeign) this.#states.push(this.generator.getState());
      this.#drawn++;
      if (count === 1) return this.generator.exponential(into);
      const behind = Math.min(...this.rows.map(({ over, drawn }) => over ? Infinity : drawn));
      for (const [number, old] of this.#ahead) {
        if (number < behind && this.#ahead.delete(number)) values = old;
      }
      this.generator.exponential(values ??= new Float32Array(count * V));
      this.#ahead.set(t, values);
    }
    const at = this.rows.indexOf(row);
    into.set(values!.subarray(at * V, (at + 1) * V));
  }
  /** Called when the reader of a row has taken `count` tokens. Discards earlier states of the generator. */
  taken(count: number): void {
    while (this.#settled < count && this.#states.length > 0) {
      this.#states.shift();
      this.#settled++;
    }
  }
  /**
   * When all rows are done, sets the generator to the state that it would have if only the taken tokens had drawn
   * noise.
   */
  settle(): void {
    if (this.#states.length === 0 || !this.rows.every(({ done }) => done)) return;
    this.generator.setState(this.#states[0]);
    this.#states.length = 0;
  }
}
