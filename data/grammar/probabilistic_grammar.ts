/**
 * Probabilistic grammars without recursion: what a text may be, how likely each is, and what that text's entropy is.
 *
 * A rule is a string, a sequence of rules, or a choice between rules. Deriving a text settles each choice that it meets,
 * independently. If no text has two derivations, a text and its derivation are equally likely, so their entropies are
 * equal, and a derivation's is a sum over the rules:
 *
 *     H(string) = 0     H(sequence) = Σ H(part)     H(choice) = Σ pᵢ · (−ln pᵢ + H(alternativeᵢ))
 *
 * Expected lengths add up the same way. For texts drawn one after the other, entropy per character is then H / length.
 */
import type { RandomGenerator } from "../../src/random/mod.ts";

/** A part of a text: itself, parts in sequence, or one of several. */
export type Rule = string | Rule[] | Choice;

/** Alternatives and their weights; each is as likely as its weight is of the sum. */
export interface Choice {
  alternatives: Rule[];
  /** Integers, so that choosing is exact. */
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

/** A choice between the parts of a string, which commas separate: `words("fox, old owl")`. */
export function words(list: string): Choice {
  return oneOf(...list.split(/, */));
}

/** A rule or nothing, equally likely. */
export function maybe(rule: Rule): Choice {
  return oneOf("", rule);
}

/** A sequence, as a template: `` sequence`The ${animal} sleeps.` ``. */
export function sequence(strings: TemplateStringsArray, ...rules: Rule[]): Rule[] {
  return strings.flatMap((string, i): Rule[] => i < rules.length ? [string, rules[i]] : [string]);
}

/**
 * Derives a text.
 *
 * @param write takes the text, piece by piece
 * @returns ln of the derivation's probability
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

/** The entropy of a rule's derivations, in nats, and the expected length of their texts, in characters. */
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
