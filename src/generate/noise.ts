/** The noise that rows choose with: drawn on the host from a generator of one row, or of some that share it. */
import type { GeneratorState, RandomGenerator } from "../random/mod.ts";

/** A row, as its noise sees it. */
export interface NoiseUser {
  /** Tokens that it has noise for. */
  readonly drawn: number;
  /** Whether it wants no more. */
  readonly over: boolean;
  /** Whether its reader has had all, or has gone. */
  readonly done: boolean;
}

/** Noise for some rows that share a generator: a choice of each of them at a time, in `torch.multinomial`'s order. */
export class Noise {
  readonly rows: NoiseUser[] = [];
  /** By the number of the token: what rows that are behind have not yet used, (rows, V). */
  readonly #ahead = new Map<number, Float32Array>();
  /** Before the noise of token number `#settled` + i was drawn. */
  readonly #states: GeneratorState[] = [];
  #settled = 0;
  #drawn = 0;

  /** @param isForeign whether somebody else goes on with the generator, who is to find it where the tokens taken have left it */
  constructor(readonly generator: RandomGenerator, readonly isForeign: boolean) {}

  /** The noise of a row's token number `t`, from 0. */
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
  /** Somebody has taken so many tokens of a row: the states before are of no more use. */
  taken(count: number): void {
    while (this.#settled < count && this.#states.length > 0) {
      this.#states.shift();
      this.#settled++;
    }
  }
  /** Where no row goes on: puts the generator where it would be if noise had been drawn only for the tokens that were taken. */
  settle(): void {
    if (this.#states.length === 0 || !this.rows.every(({ done }) => done)) return;
    this.generator.setState(this.#states[0]);
    this.#states.length = 0;
  }
}
