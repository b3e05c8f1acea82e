/** The page's distributions, compared with the rules of the sampler (kernels/choose/rules.ts). */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { type SamplingOptions, samplingRules } from "../../kernels/choose/rules.ts";
import { isText, sharesOf, visible } from "../../src/page/distribution.ts";
import { RandomGenerator } from "../../src/random/generator.ts";

/** Neutral options, in the order of the rules. */
const NEUTRAL = { temperature: 1, topK: 0, topP: 1, minP: 0 };
const V = 12;

/** Log-probabilities in descending order. */
function distribution(seed: number): number[] {
  const random = new RandomGenerator(seed), logits = Array.from({ length: V }, () => 4 * random.random32() / 2 ** 32);
  const sum = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
  return logits.map((logit) => logit - sum).sort((a, b) => b - a);
}

Deno.test("the page's shares: if all tokens are known, they equal the sampler's probabilities", () => {
  const samplers = [
    ...[{}, { temperature: 0.4 }, { temperature: 1.7 }, { topK: 3 }, { topK: 30 }, { topP: 0.6 }, { topP: 0 }],
    ...[{ minP: 0.3 }, { temperature: 1.3, topK: 8, topP: 0.8, minP: 0.1 }],
  ];
  for (let seed = 0; seed < 20; seed++) {
    const logprobs = distribution(seed), known = logprobs.map((logprob, i) => ({ token: `${i}`, logprob }));
    for (const given of samplers) {
      const scores = Float64Array.from(logprobs), sampler = { ...NEUTRAL, ...given };
      for (const [name, value] of Object.entries(sampler) as [keyof SamplingOptions & keyof typeof NEUTRAL, number][]) {
        const { neutral, apply } = samplingRules[name] as (typeof samplingRules)["topK"];
        if (value !== neutral) apply(scores, value);
      }
      const sum = scores.reduce((sum, score) => sum + Math.exp(score), 0);
      const { shares, rest } = sharesOf(known, V, sampler);
      shares.forEach((share, i) => assertAlmostEquals(share, Math.exp(scores[i]) / sum, 1e-12, JSON.stringify(given)));
      assertAlmostEquals(rest, 0, 1e-12);
    }
  }
});

Deno.test("the page's shares: the sum of unknown tokens is exact, and rules that cut off tokens apply to them, too", () => {
  const known = [0.5, 0.2].map((p, i) => ({ token: `${i}`, logprob: Math.log(p) })); // ten unknown tokens have 0.03 each
  const near = ({ shares, rest }: ReturnType<typeof sharesOf>, expected: readonly number[]) =>
    [...shares, rest].forEach((share, i) => assertAlmostEquals(share, expected[i], 1e-12));
  near(sharesOf(known, V, NEUTRAL), [0.5, 0.2, 0.3]);
  near(sharesOf(known, V, { ...NEUTRAL, topK: 2 }), [5 / 7, 2 / 7, 0]);
  near(sharesOf(known, V, { ...NEUTRAL, topK: 3 }), [50 / 73, 20 / 73, 3 / 73]);
  near(sharesOf(known, V, { ...NEUTRAL, minP: 0.1 }), [5 / 7, 2 / 7, 0]);
  near(sharesOf(known, V, { ...NEUTRAL, topP: 0.75 }), [50 / 76, 20 / 76, 6 / 76]); // 0.7, and two unknown tokens
  // √p at temperature 2.
  const [a, b, c] = [0.5, 0.2, 0.03].map(Math.sqrt), sum = a + b + 10 * c;
  near(sharesOf(known, V, { ...NEUTRAL, temperature: 2 }), [a / sum, b / sum, 10 * c / sum]);
  near(sharesOf(known, V, { ...NEUTRAL, temperature: 0 }), [1, 0, 0]);
  assertEquals(sharesOf([], V, NEUTRAL), { shares: [], rest: 1 });
});

Deno.test("the page's tokens: spaces and line ends are made visible, and parts of characters cannot be inserted", () => {
  assertEquals([" the", "a ", "\n\n", "\t", "", "a b"].map(visible), ["·the", "a·", "⏎⏎", "⇥", "(nothing)", "a b"]);
  assertEquals(["é", "bytes:\\xc3", "bytes:"].map(isText), [true, false, true]);
});
