/**
 * How much better a completion is than others of its prompt: what policies learn from instead of rewards. On the host, in f64.
 *
 * Of a group of G completions of one prompt with rewards R, GRPO (Shao et al. 2024, arXiv:2402.03300) takes (R − mean R) / (std R + 1e-4),
 * and RLOO (Ahmadian et al. 2024, arXiv:2402.14740) R less the mean of the G − 1 others.
 */

/** Sum, mean, and the standard deviation with n − 1; of one number the latter is 0. */
export function spread(values: ArrayLike<number>): Readonly<Record<"sum" | "mean" | "std", number>> {
  const all = Array.from(values), sum = all.reduce((a, b) => a + b, 0);
  if (isEven(all)) return { sum, mean: all[0], std: 0 }; // a mean may be off by a bit
  const mean = sum / all.length;
  const squares = all.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { sum, mean, std: Math.sqrt(squares / (all.length - 1)) };
}

/** What advantages are divided by: the deviation within the group, that of all rewards, or nothing. */
export type ScaleRewards = "group" | "batch" | "none";

/** As TRL, so that a group with nearly equal rewards is not blown up. */
const LEAST = 1e-4;

/**
 * GRPO's advantages, 0 in a group whose rewards are all equal.
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
 * @param rewards of completions, those of one prompt side by side
 * @param size how many a group has
 */
export function groupAdvantages(rewards: ArrayLike<number>, size: number, scale: ScaleRewards): Float64Array {
  const over = scale === "batch" ? spread(rewards).std : undefined;
  return byGroup(rewards, size, (group) => {
    const { mean, std } = spread(group), divisor = scale === "none" ? 1 : (over ?? std) + LEAST;
    return group.map((reward) => (reward - mean) / divisor);
  });
}

/**
 * RLOO's advantages, 0 in a group whose rewards are all equal.
 *
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { leaveOneOut } from "./advantages.ts";
 *
 * const [first, second] = leaveOneOut([1, 0, 0, 1], 4);
 * assertAlmostEquals(first, 2 / 3, 1e-12); // 1 less the mean of 0, 0 and 1
 * assertAlmostEquals(second, -2 / 3, 1e-12);
 * ```
 *
 * @param rewards as of {@linkcode groupAdvantages}
 * @param options.normalize whether they get the mean 0 and the deviation 1 over all groups; default false
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

/** The share of groups whose rewards are all equal, and which teach nothing. */
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
    if (!isEven(group)) all.set(of(group), at); // a mean may be off by a bit, and a division makes it much
  }
  return all;
}
