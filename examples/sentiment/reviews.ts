/**
 * Generates reviews of inns, for which the best possible classifier is known.
 *
 * A writer is content with probability 1/2. A review has three or five statements, with equal probability. Each
 * statement agrees with its writer's mood with probability 9/10, independently, and expresses it with a word of that
 * mood ("The soup was warm.") or with a negated word of the opposite mood ("The soup was hardly stale."). The choice of
 * words, things and negations has no further information, so the posterior depends only on the number of favourable
 * statements, and the best rule is their majority. With p = 9/10 and q = 1/10 it is right with probability
 *
 *     p³ + 3p²q                      for three statements, 243/250
 *     p⁵ + 5p⁴q + 10p³q²             for five, 12393/12500
 *
 * The label of a review is its writer's mood, which cannot be inferred with certainty: no classifier has a higher
 * expected accuracy than the mean of the two, {@linkcode bayesAccuracy}.
 */
import type { RandomGenerator } from "../../src/random/mod.ts";

const things = "soup,bed,room,bread,host,garden,stove,view,cellar,stair,window,blanket".split(",");
const sides = [
  "stale,cold,dull,grim,loud,damp,sour,shabby,bleak,rough".split(","),
  "warm,fresh,kind,bright,calm,neat,sweet,cosy,clean,fair".split(","),
];
const negations = ["not", "hardly", "never"];
const AGREES = 9 / 10;

/** A review with its writer's mood: 0 not content, 1 content. */
export interface Review {
  readonly text: string;
  readonly label: number;
  /** The label by the best rule. */
  readonly best: number;
}

/** Generates a review. */
export function review(generator: RandomGenerator): Review {
  const one = <T>(list: readonly T[]): T => list[generator.randint(list.length)];
  const label = generator.randint(2), count = 3 + 2 * generator.randint(2);
  let favourable = 0;
  const statements = Array.from({ length: count }, () => {
    const side = generator.randint(10) < 10 * AGREES ? label : 1 - label;
    favourable += side;
    const word = generator.randint(3) === 0 ? `${one(negations)} ${one(sides[1 - side])}` : one(sides[side]);
    return `The ${one(things)} was ${word}.`;
  });
  return { text: statements.join(" "), label, best: Number(2 * favourable > count) };
}

/** The accuracy that no classifier exceeds on average: 24543/25000. */
export const bayesAccuracy = (243 / 250 + 12393 / 12500) / 2;
