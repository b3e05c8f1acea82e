/**
 * Advantages: how much better a completion is than other completions of its prompt. Policies learn from advantages
 * instead of rewards. Computed on the host, in f64.
 *
 * For the rewards R of G completions of one prompt, the advantage in GRPO (Shao et al. 2024, arXiv:2402.03300) is (R −
 * mean R) / (std R + 1e-4). In RLOO (Ahmadian et al. 2024, arXiv:2402.14740) it is R minus the mean reward of the
 * remaining G − 1 completions.
 */

/** Sum, mean, and sample standard deviation (divisor n − 1); the deviation of a single number is 0. */
export function spread(values: ArrayLike<number>): Readonly<Record<"sum" | "mean" | "std", number>> {
  const all = Array.from(values), sum = all.reduce((a, b) => a + b, 0);
  if (isEven(all)) return { sum, mean: all[0], std: 0 }; // a rounded mean could give a deviation above 0
  const mean = sum / all.length;
  const squares = all.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { sum, mean, std: Math.sqrt(squares / (all.length - 1)) };
}

/**
 * What advantages are divided by: the standard deviation within the group, the deviation of all rewards, or nothing.
 */
export type ScaleRewards = "group" | "batch" | "none";

/**
 * Added to a deviation before dividing, as in TRL, so that tiny differences within a group do not become large
 * advantages.
 */
const LEAST = 1e-4;

/**
 * Computes GRPO's advantages. In a group whose rewards are all equal they are 0.
 *
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { groupAdvantages } from "./advantages.ts";
 *
 * const [first, second] = groupAdvantages([1, 0, 0, 1], 4, "group");
 * assertAlmostEquals(first, 0.8658754, 1e-7);
 * assertAlmostEquals(second, -0.8658754, 1e-7);
 * ```
 *
 * @param rewards one for each completion; the completions of a prompt are next to each other
 * @param size completions in a group
 */
export function groupAdvantages(rewards: ArrayLike<number>, size: number, scale: ScaleRewards): Float64Array {
  const over = scale === "batch" ? spread(rewards).std : undefined;
  return byGroup(rewards, size, (group) => {
    const { mean, std } = spread(group), divisor = scale === "none" ? 1 : (over ?? std) + LEAST;
    return group.map((reward) => (reward - mean) / divisor);
  });
}

/**
 * Computes RLOO's advantages. In a group whose rewards are all equal they are 0.
 *
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { leaveOneOut } from "./advantages.ts";
 *
 * const [first, second] = leaveOneOut([1, 0, 0, 1], 4);
 * assertAlmostEquals(first, 2 / 3, 1e-12); // 1 minus the mean of 0, 0 and 1
 * assertAlmostEquals(second, -2 / 3, 1e-12);
 * ```
 *
 * @param rewards one for each completion; the completions of a prompt are next to each other
 * @param size completions in a group
 * @param options.normalize whether to scale advantages to mean 0 and deviation 1 over all groups; default: false
 */
export function leaveOneOut(
  rewards: ArrayLike<number>,
  size: number,
  { normalize = false }: { readonly normalize?: boolean } = {},
): Float64Array {
  const all = byGroup(rewards, size, (group) => {
    const sum = group.reduce((a, b) => a + b);
    return group.map((reward) => reward - (sum - reward) / (size - 1));
  });
  if (!normalize) return all;
  const { mean, std } = spread(all);
  return all.map((advantage) => (advantage - mean) / (std + LEAST));
}

/** The share of groups whose rewards are all equal. Nothing is learned from such a group. */
export function equalGroups(rewards: ArrayLike<number>, size: number): number {
  const groups = rewards.length / size;
  let equal = 0;
  for (let g = 0; g < groups; g++) {
    equal += Number(isEven(Array.from({ length: size }, (_, i) => rewards[g * size + i])));
  }
  return equal / groups;
}

const isEven = (group: readonly number[]) => group.every((reward) => reward === group[0]);

function byGroup(rewards: ArrayLike<number>, size: number, of: (group: readonly number[]) => number[]): Float64Array {
  const all = new Float64Array(rewards.length);
  for (let at = 0; at < rewards.length; at += size) {
    const group = Array.from({ length: size }, (_, i) => rewards[at + i]);
    // An even group stays 0. Dividing the rounding error of its mean by a tiny deviation would give noise.
    if (!isEven(group)) all.set(of(group), at);
  }
  return all;
}
