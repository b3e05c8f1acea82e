/**
 * Computes the optimum of a small world exactly, by enumerating every answer with its probability.
 *
 * The objective J(π) = E r − β · KL(π ‖ ref) of a policy π has one optimum, π* = ref · exp(r / β) / Z, with the value
 * J* = β · log Z (Ziebart 2010; Rafailov et al. 2023, arXiv:2305.18290, appendix A.1). Any other policy falls short of
 * it by J* − J(π) = β · KL(π ‖ π*). PPO, GRPO and DPO with the same β share this optimum, so the same two numbers
 * measure all of them.
 *
 * Answers are the leaves of a tree with V tokens at each of L places. The digits of a leaf's index to the base V are
 * the answer's tokens, the first token being the highest digit. An answer that ends early is padded with its end token.
 */
import { type GPT, noGrad, RandomGenerator } from "@nanogpt/ts";
import { logSoftmax, slice } from "@nanogpt/ts/ops";

/** The set of all possible answers. */
export interface Answers {
  /** V: the size of the vocabulary. */ readonly vocabSize: number;
  /** L: the maximum number of tokens of an answer, including its end token. */ readonly length: number;
  /** The token that ends an answer. Default: every answer has L tokens. */ readonly end?: number;
}

/** Number of leaves of the tree, including leaves with tokens after an end token. */
export const leaves = ({ vocabSize, length }: Answers): number => vocabSize ** length;

/** The tokens of a leaf, up to and including its end token. */
export function tokensOf(leaf: number, { vocabSize, length, end }: Answers): number[] {
  const tokens: number[] = [];
  for (let t = length - 1; t >= 0 && tokens.at(-1) !== (end ?? NaN); t--) {
    tokens.push(Math.floor(leaf / vocabSize ** t) % vocabSize);
  }
  return tokens;
}

/** The leaf of an answer of at most L tokens. */
export function leafOf(tokens: ArrayLike<number>, { vocabSize, length, end = 0 }: Answers): number {
  let leaf = 0;
  for (let t = 0; t < length; t++) leaf = leaf * vocabSize + (t < tokens.length ? tokens[t] : end);
  return leaf;
}

/** Sequences per forward pass. */
const BATCH = 1024;

/**
 * Computes the log-probabilities of all answers to a prompt. The model reads every prefix of L − 1 tokens once.
 *
 * @returns a number for each leaf, in nats; −∞ for leaves with tokens after an end token
 */
export async function enumerate(model: GPT, prompt: ArrayLike<number>, answers: Answers): Promise<Float64Array> {
  const { vocabSize: V, length: L, end } = answers, { device } = model, P = prompt.length, T = P + L - 1;
  const found = new Float64Array(V ** L).fill(-Infinity), prefixes: number[] = [];
  for (let prefix = 0; prefix < V ** (L - 1); prefix++) {
    const ended = end === undefined ? -1 : tokensOf(prefix, { ...answers, length: L - 1 }).indexOf(end);
    // An answer that ended early has one leaf: the one padded with end tokens.
    if (ended < 0 || prefix % V ** (L - 2 - ended) === filled(end!, V, L - 2 - ended)) prefixes.push(prefix);
  }
  for (let at = 0; at < prefixes.length; at += BATCH) {
    const some = prefixes.slice(at, at + BATCH), ids = new Int32Array(some.length * T);
    for (const [i, prefix] of some.entries()) {
      for (let t = 0; t < T; t++) {
        ids[i * T + t] = t < P ? prompt[t] : Math.floor(prefix / V ** (T - 1 - t)) % V;
      }
    }
    const pass = () => {
      using scope = device.scope();
      const states = model.hidden(device.tensor(ids, [some.length, T], { dtype: "i32" }));
      const asked = slice(states, { axis: 1, start: P - 1 }); // (B, L, C): states that predict the answer
      return scope.keep(logSoftmax(model.lm_head.forward(asked))); // (B, L, V)
    };
    const logs = noGrad(pass), values = await logs.data();
    logs.dispose();
    for (const [i, prefix] of some.entries()) {
      let sum = 0, ended = false;
      for (let t = 0; t < L - 1 && !ended; t++) {
        const token = Math.floor(prefix / V ** (L - 2 - t)) % V;
        sum += values[(i * L + t) * V + token];
        ended = token === end;
      }
      for (let token = 0; token < V; token++) {
        if (!ended) found[prefix * V + token] = sum + values[(i * L + L - 1) * V + token];
        else if (token === end) found[prefix * V + token] = sum;
      }
    }
  }
  return found;
}

/** The number whose digits are all `digit`. */
const filled = (digit: number, base: number, digits: number) => digit * (base ** digits - 1) / (base - 1);

/** log Σ exp, without overflow. */
export function logSumExp(values: Float64Array): number {
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (top === -Infinity) return top;
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

/** KL(p ‖ q) = Σ p · (log p − log q), in nats. The arguments are log p and log q. */
export function divergence(p: Float64Array, q: Float64Array): number {
  return p.reduce((sum, log, i) => log === -Infinity ? sum : sum + Math.exp(log) * (log - q[i]), 0);
}

/** The mean Σ p · value. The first argument is log p. */
export function expectation(p: Float64Array, values: ArrayLike<number>): number {
  return p.reduce((sum, log, i) => log === -Infinity ? sum : sum + Math.exp(log) * values[i], 0);
}

/** log π*, where π* is the policy with the highest J. */
export function optimum(ref: Float64Array, reward: ArrayLike<number>, beta: number): Float64Array {
  const tilted = ref.map((log, i) => log + reward[i] / beta), total = logSumExp(tilted);
  return tilted.map((log) => log - total);
}

/** J* = β · log Σ ref · exp(r / β). */
export function optimalValue(ref: Float64Array, reward: ArrayLike<number>, beta: number): number {
  return beta * logSumExp(ref.map((log, i) => log + reward[i] / beta));
}

/** The measures of a policy. */
export interface Judgement {
  /** E r. */ readonly reward: number;
  /** KL(π ‖ ref), nats an answer. */ readonly kl: number;
  /** J(π) / J*. */ readonly share: number;
  /** KL(π ‖ π*), nats an answer. */ readonly distance: number;
}

/** Measures a policy exactly, given its log-probabilities of all answers. */
export function judge(
  policy: Float64Array,
  { ref, reward, beta }: { ref: Float64Array; reward: ArrayLike<number>; beta: number },
): Judgement {
  const mean = expectation(policy, reward), kl = divergence(policy, ref);
  const share = (mean - beta * kl) / optimalValue(ref, reward, beta);
  return { reward: mean, kl, share, distance: divergence(policy, optimum(ref, reward, beta)) };
}

/** A policy counts as near the optimum if its `share` is at least, and its `distance` at most, this number. */
export const NEAR = { share: 0.97, distance: 0.1 };
/** Whether a policy is near the optimum. DPO, which never generates answers, is allowed twice the distance. */
export const isNear = ({ share, distance }: Judgement, near = NEAR): boolean =>
  share >= near.share && distance <= near.distance;

/**
 * The fixed point of a policy gradient whose penalty is per token, as in GRPO's loss: at every prefix s
 *
 *     π(a | s) ∝ ref(a | s) · exp(Q(s, a) / β),   Q(s, a) = E[f | s, a]
 *
 * where f is a text's advantage. The policy is computed from the last place to the first, because Q depends only on
 * later places. For π*, Q also includes the divergences of later places; here it does not (docs/rlhf.md derives both).
 *
 * @param advantage f of every leaf
 */
export function tokenwise(
  ref: Float64Array,
  advantage: Float64Array,
  { vocabSize: V, length: L, beta }: Answers & { readonly beta: number },
): Float64Array {
  let logs = ref, value = advantage;
  const steps: Float64Array[] = [];
  for (let t = L - 1; t >= 0; t--) {
    const before = new Float64Array(V ** t), means = new Float64Array(V ** t), step = new Float64Array(V ** (t + 1));
    for (let s = 0; s < before.length; s++) {
      const part = logs.subarray(s * V, (s + 1) * V), q = value.subarray(s * V, (s + 1) * V);
      const choice = logSumExp(part) === -Infinity ? part : optimum(part, q, beta);
      step.set(choice, s * V);
      [before[s], means[s]] = [logSumExp(part), expectation(choice, q)];
    }
    steps.unshift(step);
    [logs, value] = [before, means];
  }
  return ref.map((_, leaf) => steps.reduce((sum, step, t) => sum + step[Math.floor(leaf / V ** (L - 1 - t))], 0));
}

/** Number of groups that are sampled to estimate a mean advantage, and number of iterations towards the fixed point. */
const GROUPS = 4000, ROUNDS = 40;

/**
 * Computes GRPO's fixed point, the policy at which the gradient of GRPO's loss vanishes. It is the result of
 * {@linkcode tokenwise} with f = the mean of a text's advantage A over random groups.
 *
 * Without scaling, A is r minus the mean reward of the group, which includes the text itself. The expectation of A is
 * (1 − 1/G) · (r − E r), which has the same effect as a β that is G / (G − 1) times as large. With scaling,
 * A = (r − mean) / (deviation + 1e-4), which has the same effect as a β multiplied by about the standard deviation of
 * the final policy's rewards. That deviation depends on the policy, so the policy is computed by fixed-point iteration.
 *
 * @param options.group G, number of texts per prompt
 * @param options.scaled whether advantages are divided by the group's deviation
 */
export function groupFixedPoint(
  ref: Float64Array,
  reward: Float64Array,
  { group, scaled, ...options }: Answers & {
    readonly beta: number;
    readonly group: number;
    readonly scaled: boolean;
  },
): Float64Array {
  if (!scaled) return tokenwise(ref, reward.map((r) => r * (1 - 1 / group)), options);
  const levels = [...new Set(reward)].sort((a, b) => a - b), place = new Map(levels.map((level, i) => [level, i]));
  const level = Int32Array.from(reward, (r) => place.get(r)!);
  const advantages = Float64Array.from(levels, (r) => r); // one per level of the reward
  let policy = ref;
  for (let round = 0; round < ROUNDS; round++) {
    const chances = new Float64Array(levels.length);
    policy.forEach((log, leaf) => chances[level[leaf]] += Math.exp(log));
    const means = scaledAdvantages(levels, chances, group), step = round === 0 ? 1 : 0.5;
    for (const [i, mean] of means.entries()) advantages[i] += step * (mean - advantages[i]);
    policy = tokenwise(ref, reward.map((_, leaf) => advantages[level[leaf]]), options);
  }
  return policy;
}

/**
 * The mean of (r − mean) / (deviation + 1e-4) for a text with each level of the reward, over groups whose other texts
 * are sampled.
 */
function scaledAdvantages(levels: readonly number[], chances: Float64Array, group: number): Float64Array {
  const generator = new RandomGenerator(1),
    uniforms = new Float32Array(group - 1),
    means = new Float64Array(levels.length);
  const up = chances.map(((sum) => (chance) => sum += chance)(0)), last = levels.length - 1;
  for (let i = 0; i < GROUPS; i++) {
    generator.uniform(uniforms);
    let sum = 0, squares = 0;
    for (const u of uniforms) {
      const found = up.findIndex((end) => u < end), r = levels[found < 0 ? last : found];
      [sum, squares] = [sum + r, squares + r * r];
    }
    for (const [j, r] of levels.entries()) {
      const mean = (sum + r) / group, variance = Math.max(squares + r * r - group * mean ** 2, 0) / (group - 1);
      means[j] += (r - mean) / (Math.sqrt(variance) + 1e-4) / GROUPS;
    }
  }
  return means;
}
