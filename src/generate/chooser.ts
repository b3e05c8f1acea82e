/** The choice of the next tokens on the host, where more is asked for than temperature and topK: from logits that were read back. */
import { ConfigError } from "../errors.ts";
import type { NumberArray } from "../kernel.ts";
import { damagedLogits, logSumExp, maximum } from "./logits_processors.ts";
import { isGreedy, processLogits, type SamplingOptions } from "./sampling_rules.ts";
import type { RandomGenerator } from "../random/mod.ts";

/** A token and the logarithm of its probability. */
export interface TokenLogprob {
  /** Of the token. */ readonly id: number;
  /** In nats; by the model's own distribution, before temperature, penalties and the rest. */ readonly logprob: number;
}

/** A token, and how likely it was. */
export interface Chosen {
  /** Of the token. */ readonly id: number;
  /** As {@linkcode TokenLogprob.logprob}, where asked for. */ readonly logprob?: number;
  /** The likeliest tokens, the likeliest first, where asked for. */ readonly topLogprobs?: readonly TokenLogprob[];
}

export interface ChooserOptions extends SamplingOptions {
  readonly generator: RandomGenerator;
  /** Whether to give the chosen token's log-probability. */
  readonly logprobs?: boolean;
  /** For how many of the likeliest tokens to give it besides. */
  readonly topLogprobs?: number;
}

export class Chooser {
  /** All tokens of each sequence. */
  readonly #tokens: number[][];
  readonly #prompt: number;
  readonly #noise: Float32Array;

  constructor(
    prompt: readonly number[],
    { batch, vocabSize }: { batch: number; vocabSize: number },
    readonly options: ChooserOptions,
  ) {
    this.#tokens = Array.from({ length: batch }, () => [...prompt]);
    this.#prompt = prompt.length;
    this.#noise = new Float32Array(batch * vocabSize).fill(1);
  }

  /**
   * A token for each sequence: argmax p / q with exponential noise q, as `torch.multinomial`, or of temperature 0 argmax p.
   *
   * @param logits (B, V), row by row
   */
  choose(logits: NumberArray): Chosen[] {
    const B = this.#tokens.length, V = logits.length / B, { temperature = 1, generator } = this.options;
    if (temperature > 0) generator.exponential(this.#noise);
    return this.#tokens.map((tokens, b) => {
      const row = new Float64Array(logits.subarray(b * V, (b + 1) * V)), scores = row.slice();
      processLogits(scores, this.options, { tokens, prompt: this.#prompt });
      const id = this.#draw(row, scores, this.#noise.subarray(b * V, (b + 1) * V));
      tokens.push(id);
      return { id, ...this.#logprobs(row, id) };
    });
  }

  #draw(logits: Float64Array, scores: Float64Array, noise: Float32Array): number {
    const greatest = maximum(scores);
    if (!Number.isFinite(greatest)) {
      const reached = maximum(logits);
      if (!Number.isFinite(reached)) throw damagedLogits(reached);
      throw new ConfigError("logitBias, or a penalty, bans every token");
    }
    if (isGreedy(this.options.temperature ?? 1)) return scores.indexOf(greatest);
    let best = -1, id = 0;
    for (let i = 0; i < scores.length; i++) {
      if (scores[i] === -Infinity) continue;
      const share = Math.exp(scores[i] - greatest) / noise[i];
      if (share > best) best = share, id = i;
    }
    return id;
  }

  #logprobs(logits: Float64Array, id: number): Omit<Chosen, "id"> {
    const { logprobs, topLogprobs } = this.options;
    if (!logprobs && topLogprobs === undefined) return {};
    const log = logSumExp(logits), logprob = logits[id] - log;
    if (topLogprobs === undefined) return { logprob };
    return { logprob, topLogprobs: greatest(logits, topLogprobs).map((id) => ({ id, logprob: logits[id] - log })) };
  }
}

/** Places of the n greatest, the greatest first; of equal ones the earlier. */
function greatest(values: Float64Array, n: number): number[] {
  const places: number[] = [];
  values.forEach((value, i) => {
    if (places.length === n && !(n > 0 && value > values[places[n - 1]])) return;
    const at = places.findIndex((place) => value > values[place]);
    places.splice(at < 0 ? places.length : at, 0, i);
    places.length = Math.min(places.length, n);
  });
  return places;
}
