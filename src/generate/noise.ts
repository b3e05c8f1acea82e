/** The noise with which rows choose tokens. The host draws it from a generator that one row, or several rows, use. */
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
 * Noise for rows that share a generator. It is drawn for one token of all rows at a time, in the order of
 * `torch.multinomial`.
 */
export class Noise {
  readonly rows: NoiseUser[] = [];
  /** Noise that some rows have not used yet, (rows, V), by the number of the token. */
  readonly #ahead = new Map<number, Float32Array>();
  /** Element i is the generator's state before it drew the noise of token number `#settled` + i. */
  readonly #states: GeneratorState[] = [];
  #settled = 0;
  #drawn = 0;

  /**
   * @param isForeign whether the generator is the caller's, who will use it afterwards: its state must then depend only
   *   on the tokens that were taken
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
  /**
   * Notes that the reader of a row has taken `count` tokens: earlier states of the generator are not needed any more.
   */
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
