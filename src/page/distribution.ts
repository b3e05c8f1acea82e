/** What becomes of a model's distribution when it is sampled from: arithmetic on log-probabilities, without the model. */

/** A token with the logarithm of its probability, in nats, by the model's own distribution. */
export interface Scored {
  readonly token: string;
  readonly logprob: number;
}

/** How tokens are drawn. */
export interface Sampler {
  /** Divides the log-probabilities; 0 takes the likeliest. */
  readonly temperature: number;
  /** The fewest tokens that together have this probability stay. */
  readonly topP: number;
  /** The likeliest so many stay; 0: all. */
  readonly topK: number;
  /** Those stay that have at least this share of the likeliest one's probability. */
  readonly minP: number;
}

/** Probabilities of the tokens that are known, in their order, and of all others together. */
export interface Shares {
  readonly shares: readonly number[];
  readonly rest: number;
}

/**
 * The probabilities with which tokens are drawn. Of the vocabulary only the likeliest tokens are known; each of the others counts as
 * having an equal part of what is left, which at temperature 1 gives their sum exactly.
 *
 * @param known the likeliest first
 */
export function sharesOf(
  known: readonly Scored[],
  vocabSize: number,
  { temperature, topP, topK, minP }: Sampler,
): Shares {
  if (known.length === 0) return { shares: [], rest: 1 };
  if (temperature === 0) return { shares: known.map((_, i) => i === 0 ? 1 : 0), rest: 0 };
  const left = Math.max(0, 1 - known.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0));
  const unknown = Math.max(0, vocabSize - known.length), greatest = known[0].logprob;
  const weight = (logprob: number) => Math.exp((logprob - greatest) / temperature);
  let weights = known.map(({ logprob }) => weight(logprob));
  let count = left > 1e-9 ? unknown : 0; // as many of the others as may be drawn
  const other = count > 0 ? weight(Math.log(left / count)) : 0;
  if (topK > 0) {
    weights = weights.map((weight, i) => i < topK ? weight : 0);
    count = Math.min(count, Math.max(0, topK - known.length));
  }
  if (topP < 1) {
    let wanted = topP * (weights.reduce((a, b) => a + b) + count * other);
    weights = weights.map((weight, i) => {
      const stays = i === 0 || wanted > 0;
      wanted -= weight;
      return stays ? weight : 0;
    });
    count = other > 0 ? Math.min(count, Math.max(0, Math.ceil(wanted / other))) : 0;
  }
  weights = weights.map((weight) => weight < minP ? 0 : weight);
  if (other < minP) count = 0;
  const sum = weights.reduce((a, b) => a + b) + count * other;
  return { shares: weights.map((weight) => weight / sum), rest: count * other / sum };
}

/** A token as it can be read: spaces and line ends are shown. */
export const visible = (token: string): string =>
  token.replace(/^ | $/g, "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "(nothing)";
/** Whether a token is whole characters, so that it can be put into a text. */
export const isText = (token: string): boolean => !token.startsWith("bytes:\\x");
