/**
 * Computes the distribution that tokens are sampled from, given the model's log-probabilities and the sampling options.
 */

/** A token and its log-probability, in nats, by the model's own distribution. */
export interface Scored {
  readonly token: string;
  readonly logprob: number;
}

/** The sampling options. */
export interface Sampler {
  /** Divides the log-probabilities; 0 always chooses the most likely token. */
  readonly temperature: number;
  /** Only the smallest set of tokens that together have this probability can be chosen. */
  readonly topP: number;
  /** Only the k most likely tokens can be chosen; 0: all. */
  readonly topK: number;
  /** Only tokens with at least this fraction of the greatest probability can be chosen. */
  readonly minP: number;
}

/** Probabilities of the known tokens, in their order, and of all other tokens together. */
export interface Shares {
  readonly shares: readonly number[];
  readonly rest: number;
}

/**
 * Computes the probabilities with which tokens are sampled. Only the most likely tokens of the vocabulary are known.
 * All other tokens are assumed to share the remaining probability equally; at temperature 1 their sum is exact.
 *
 * @param known the most likely tokens, in descending order
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
  let count = left > 1e-9 ? unknown : 0; // number of unknown tokens that can be chosen
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

/** Makes spaces, tabs and line ends of a token visible. */
export const visible = (token: string): string =>
  token.replace(/^ | $/g, "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "(nothing)";
/** Whether a token consists of whole characters and can be inserted into a text. */
export const isText = (token: string): boolean => !token.startsWith("bytes:\\x");
