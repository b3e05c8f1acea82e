/**
 * The known optimum of a small world: every answer enumerated, with its exact probability.
 *
 * A policy π that is tuned to maximise J(π) = E r − β · KL(π ‖ ref) has one optimum, π* = ref · exp(r / β) / Z, whose value is
 * J* = β · log Z (Ziebart 2010; Rafailov et al. 2023, arXiv:2305.18290, appendix A.1). Any other policy loses
 * J* − J(π) = β · KL(π ‖ π*). PPO, GRPO and DPO with the same β share this optimum, so that two numbers measure them all.
 *
 * Answers are the leaves of a tree: V tokens at each of L places, where an answer may end early. A leaf's index has its tokens as
 * digits to the base V, the first token the highest; an ended answer is filled up with its end token.
 */
import { type GPT, noGrad, RandomGenerator } from "@nanogpt/ts";
import { logSoftmax, slice } from "@nanogpt/ts/ops";

/** All answers that there can be. */
export interface Answers {
  /** V: how many tokens there are. */ readonly vocabSize: number;
  /** L: the most tokens of an answer, its end included. */ readonly length: number;
  /** The token that ends an answer. Default: every answer has L tokens. */ readonly end?: number;
}

/** How many leaves the tree has, those that repeat an ended answer among them. */
export const leaves = ({ vocabSize, length }: Answers): number => vocabSize ** length;

/** A leaf's tokens, up to its end token and with it. */
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

/** Sequences of a pass. */
const BATCH = 1024;

/**
 * Log-probabilities of all answers to a prompt, by as many passes as it takes to see each prefix of L − 1 tokens once.
 *
 * @returns a number for each leaf, in nats; −∞ where tokens follow an end
 */
export async function enumerate(model: GPT, prompt: ArrayLike<number>, answers: Answers): Promise<Float64Array> {
  const { vocabSize: V, length: L, end } = answers, { device } = model, P = prompt.length, T = P + L - 1;
  const found = new Float64Array(V ** L).fill(-Infinity), prefixes: number[] = [];
  for (let prefix = 0; prefix < V ** (L - 1); prefix++) {
    const ended = end === undefined ? -1 : tokensOf(prefix, { ...answers, length: L - 1 }).indexOf(end);
    // Of an ended answer only the leaf that is filled up with end tokens counts.
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
      const asked = slice(states, { axis: 1, start: P - 1 }); // (B, L, C): what each token of the answer is drawn from
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

/** The number of which all digits are `digit`. */
const filled = (digit: number, base: number, digits: number) => digit * (base ** digits - 1) / (base - 1);

/** log Σ exp, without overflow. */
export function logSumExp(values: Float64Array): number {
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (top === -Infinity) return top;
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0));
}

/** KL(p ‖ q) = Σ p · (log p − log q), in nats, of log-probabilities. */
export function divergence(p: Float64Array, q: Float64Array): number {
  return p.reduce((sum, log, i) => log === -Infinity ? sum : sum + Math.exp(log) * (log - q[i]), 0);
}

/** Σ p · value, of log-probabilities. */
export function expectation(p: Float64Array, values: ArrayLike<number>): number {
  return p.reduce((sum, log, i) => log === -Infinity ? sum : sum + Math.exp(log) * values[i], 0);
}

/** log π*: the policy of the highest J. */
export function optimum(ref: Float64Array, reward: ArrayLike<number>, beta: number): Float64Array {
  const tilted = ref.map((log, i) => log + reward[i] / beta), total = logSumExp(tilted);
  return tilted.map((log) => log - total);
}

/** J* = β · log Σ ref · exp(r / β). */
export function optimalValue(ref: Float64Array, reward: ArrayLike<number>, beta: number): number {
  return beta * logSumExp(ref.map((log, i) => log + reward[i] / beta));
}

/** Where a policy lies. */
export interface Judgement {
  /** E r. */ readonly reward: number;
  /** KL(π ‖ ref), nats an answer. */ readonly kl: number;
  /** J(π) / J*. */ readonly share: number;
  /** KL(π ‖ π*), nats an answer. */ readonly distance: number;
}

/** Judges log-probabilities of all answers, exactly. */
export function judge(
  policy: Float64Array,
  { ref, reward, beta }: { ref: Float64Array; reward: ArrayLike<number>; beta: number },
): Judgement {
  const mean = expectation(policy, reward), kl = divergence(policy, ref);
  const share = (mean - beta * kl) / optimalValue(ref, reward, beta);
  return { reward: mean, kl, share, distance: divergence(policy, optimum(ref, reward, beta)) };
}

/** How near a policy has to come. */
export const NEAR = { share: 0.97, distance: 0.1 };
/** Whether it is as near as that; DPO, which never sees a text of its own, is allowed twice the distance. */
export const isNear = ({ share, distance }: Judgement, near = NEAR): boolean =>
  share >= near.share && distance <= near.distance;

/**
 * What a policy gradient comes to that takes the penalty of each token alone, as GRPO's loss does: at every prefix s
 *
 *     π(a | s) ∝ ref(a | s) · exp(Q(s, a) / β),   Q(s, a) = E[f | s, a]
 *
 * where f is a text's advantage. The policy is found from the last place to the first, for Q depends on what comes after alone. In
 * π* the divergences that are still to come stand in Q as well; here they are missing (docs/rlhf.md derives both).
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

/** Groups that are drawn to find out what an advantage is on average, and rounds until the policy stays as it is. */
const GROUPS = 4000, ROUNDS = 40;

/**
 * Where GRPO comes to rest: {@linkcode tokenwise} with the advantages that groups give on average.
 *
 * Without scaling, A = r − mean of the group, to which the text itself belongs: on average (1 − 1/G) · (r − E r), so that β counts
 * G / (G − 1) times. Scaled, A = (r − mean) / (deviation + 1e-4): β counts about as many times as the deviation of the rewards that
 * the policy has in the end, which is found by going round.
 *
 * @param options.group G, texts of a prompt
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
  const advantages = Float64Array.from(levels, (r) => r); // of each level
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

/** The mean of (r − mean) / (deviation + 1e-4) for a text with each reward, in groups whose others are drawn. */
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
