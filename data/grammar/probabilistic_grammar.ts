/**
 * Probabilistic grammars without recursion, which generate random texts whose entropy is known.
 *
 * A rule is a string, a sequence of rules, or a choice between rules. To derive a text, each choice is made
 * independently. If no text has two derivations, a text and its derivation have the same probability. So their
 * entropies are equal, and the entropy of derivations is computed rule by rule:
 *
 *     H(string) = 0     H(sequence) = Σ H(part)     H(choice) = Σ pᵢ · (−ln pᵢ + H(alternativeᵢ))
 *
 * Expected lengths are computed in the same way. If texts are drawn one after another, the entropy per character is H /
 * length.
 */
import type { RandomGenerator } from "../../src/random/mod.ts";

/** A rule: a string, a sequence of rules, or a choice. */
export type Rule = string | Rule[] | Choice;

/** A choice between rules. The probability of an alternative is its weight divided by `total`. */
export interface Choice {
  alternatives: Rule[];
  /** Integers, so that the random choice is exact. */
  weights: number[];
  total: number;
}

/** A choice between equally likely alternatives. */
export function oneOf(...alternatives: Rule[]): Choice {
  return weighted(...alternatives.map((rule): [number, Rule] => [1, rule]));
}

/** A choice between alternatives with integer weights. */
export function weighted(...pairs: [weight: number, rule: Rule][]): Choice {
  const weights = pairs.map(([weight]) => weight);
  return { alternatives: pairs.map(([, rule]) => rule), weights, total: weights.reduce((sum, weight) => sum + weight) };
}

/** A choice between the items of a comma-separated list, equally likely: `words("fox, old owl")`. */
export function words(list: string): Choice {
  return oneOf(...list.split(/, */));
}

/** A rule or an empty text, equally likely. */
export function maybe(rule: Rule): Choice {
  return oneOf("", rule);
}

/** A sequence, written as a template literal: `` sequence`The ${animal} sleeps.` ``. */
export function sequence(strings: TemplateStringsArray, ...rules: Rule[]): Rule[] {
  return strings.flatMap((string, i): Rule[] => i < rules.length ? [string, rules[i]] : [string]);
}

/**
 * Derives a random text.
 *
 * @param write called with each piece of the text
 * @returns natural logarithm of the derivation's probability
 */
export function derive(rule: Rule, generator: RandomGenerator, write: (piece: string) => void): number {
  if (typeof rule === "string") {
    write(rule);
    return 0;
  }
  if (Array.isArray(rule)) return rule.reduce<number>((sum, part) => sum + derive(part, generator, write), 0);
  let i = 0, left = generator.randint(rule.total);
  while (left >= rule.weights[i]) left -= rule.weights[i++];
  return Math.log(rule.weights[i] / rule.total) + derive(rule.alternatives[i], generator, write);
}

/** Computes the entropy of a rule's derivations in nats, and the expected length of their texts in characters. */
export function measure(rule: Rule): { entropy: number; length: number } {
  if (typeof rule === "string") return { entropy: 0, length: rule.length };
  let entropy = 0, length = 0;
  if (Array.isArray(rule)) {
    for (const part of rule.map(measure)) {
      entropy += part.entropy;
      length += part.length;
    }
  } else {
    rule.alternatives.map(measure).forEach((alternative, i) => {
      const p = rule.weights[i] / rule.total;
      entropy += p * (alternative.entropy - Math.log(p));
      length += p * alternative.length;
    });
  }
  return { entropy, length };
}
