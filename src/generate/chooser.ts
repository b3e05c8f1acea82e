/** The choice of a row's next token on the host, where more is asked for than temperature and topK: from logits that were read back. */
import { ConfigError } from "../errors.ts";
import { damagedLogits, logSumExp, maximum } from "./logits_processors.ts";
import { type History, isGreedy, processLogits, type SamplingOptions } from "./sampling_rules.ts";

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
  /** Whether to give the chosen token's log-probability. */
  readonly logprobs?: boolean;
  /** For how many of the likeliest tokens to give it besides. */
  readonly topLogprobs?: number;
}

/**
 * A row's next token: argmax p / q with exponential noise q, as `torch.multinomial`, or of temperature 0 argmax p.
 *
 * @param logits (V)
 * @param noise (V)
 * @throws {DataError} when the logits are not numbers
 * @throws {ConfigError} when the options leave no token
 */
export function choose(
  logits: ArrayLike<number>,
  noise: ArrayLike<number>,
  options: ChooserOptions,
  history: History,
): Chosen {
  const row = new Float64Array(logits), scores = row.slice();
  processLogits(scores, options, history);
  const id = draw(row, scores, noise, options), { logprobs, topLogprobs } = options;
  if (!logprobs && topLogprobs === undefined) return { id };
  return { id, ...likelihood(row, id, topLogprobs) };
}

function draw(
  logits: Float64Array,
  scores: Float64Array,
  noise: ArrayLike<number>,
  { temperature = 1 }: ChooserOptions,
): number {
  const greatest = maximum(scores);
  if (!Number.isFinite(greatest)) {
    const reached = maximum(logits);
    if (!Number.isFinite(reached)) throw damagedLogits(reached);
    throw new ConfigError("logitBias, or a penalty, bans every token");
  }
  if (isGreedy(temperature)) return scores.indexOf(greatest);
  let best = -1, id = 0;
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] === -Infinity) continue;
    const share = Math.exp(scores[i] - greatest) / noise[i];
    if (share > best) best = share, id = i;
  }
  return id;
}

/** The log-probability of a token, and where asked for those of the likeliest. */
export function likelihood(logits: Float64Array, id: number, top?: number): Omit<Chosen, "id"> & { logprob: number } {
  const log = logSumExp(logits), logprob = logits[id] - log;
  if (top === undefined) return { logprob };
  return { logprob, topLogprobs: greatest(logits, top).map((id) => ({ id, logprob: logits[id] - log })) };
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
