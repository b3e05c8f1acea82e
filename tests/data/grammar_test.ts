import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { grammarCorpus, grammarEntropy, news } from "../../data/grammar/grammar.ts";
import {
  derive,
  measure,
  oneOf,
  type Rule,
  sequence,
  weighted,
  words,
} from "../../data/grammar/probabilistic_grammar.ts";
import { RandomGenerator } from "../../src/random/mod.ts";

type Edge = [to: number, p: number];

/** The states in which a rule's texts may begin and end, with probabilities, and the probability of an empty text. */
interface Ends {
  first: Edge[];
  last: Edge[];
  empty: number;
}

const scaled = (edges: Edge[], by: number) => by === 0 ? [] : edges.map(([to, p]): Edge => [to, p * by]);

/**
 * A grammar as an automaton (Glushkov, 1961): it has a state for every character of a rule, and an edge to each
 * character that may follow, with its probability. A path is a derivation.
 */
class Automaton {
  /** Each state's character; state 0 is the start. */
  characters = [""];
  /** Each state's successors. */
  edges: Edge[][] = [[]];
  /** For each state, the probability that a text that has reached it ends there. */
  final = new Map<number, number>();

  /** @param repeated whether the automaton accepts any number of the rule's texts, one after the other */
  constructor(rule: Rule, { repeated = false } = {}) {
    const { first, last } = this.#add(rule);
    this.edges[0] = first;
    this.final = new Map(last);
    if (repeated) this.#connect(last, first);
  }

  #add(rule: Rule): Ends {
    if (typeof rule === "string") {
      const states = [...rule].map((character) => {
        this.edges.push([]);
        return this.characters.push(character) - 1;
      });
      if (states.length === 0) return { first: [], last: [], empty: 1 };
      states.slice(1).forEach((to, i) => this.edges[states[i]].push([to, 1]));
      return { first: [[states[0], 1]], last: [[states.at(-1)!, 1]], empty: 0 };
    }
    if (Array.isArray(rule)) {
      return rule.map((part) => this.#add(part)).reduce((a, b) => {
        this.#connect(a.last, b.first);
        const first = [...a.first, ...scaled(b.first, a.empty)], last = [...b.last, ...scaled(a.last, b.empty)];
        return { first, last, empty: a.empty * b.empty };
      });
    }
    const parts = rule.alternatives.map((alternative) => this.#add(alternative));
    assert(parts.filter(({ empty }) => empty > 0).length <= 1, "two alternatives that may be empty");
    const p = rule.weights.map((weight) => weight / rule.total);
    return {
      first: parts.flatMap(({ first }, i) => scaled(first, p[i])),
      last: parts.flatMap(({ last }) => last),
      empty: parts.reduce((sum, { empty }, i) => sum + p[i] * empty, 0),
    };
  }

  #connect(last: Edge[], first: Edge[]) {
    for (const [from, ends] of last) this.edges[from].push(...scaled(first, ends));
  }

  /**
   * Whether a text has two derivations. Such a text exists exactly if two paths separate, read the same characters, and
   * then meet again or may both end.
   */
  isAmbiguous(): boolean {
    const n = this.edges.length, seen = new Set<number>(), pending: [number, number][] = [];
    const step = (a: number, b: number): boolean =>
      this.edges[a].some(([to], i) =>
        this.edges[b].slice(a === b ? i + 1 : 0).some(([other]) => {
          if (this.characters[to] !== this.characters[other]) return false;
          const pair = Math.min(to, other) * n + Math.max(to, other);
          if (!seen.has(pair)) pending.push([to, other]);
          seen.add(pair);
          return to === other;
        })
      );
    for (let state = 0; state < n; state++) if (step(state, state)) return true;
    while (pending.length > 0) {
      const pair = pending.pop()!;
      if (pair.every((state) => this.final.has(state)) || step(...pair)) return true;
    }
    return false;
  }

  /** The logarithm of a text's probability, which is the sum over all its derivations. */
  logProbability(text: string): number {
    let states = new Map([[0, 1]]), log = 0;
    for (const character of text) {
      const next = new Map<number, number>();
      for (const [state, p] of states) {
        for (const [to, q] of this.edges[state]) {
          if (this.characters[to] === character) next.set(to, (next.get(to) ?? 0) + p * q);
        }
      }
      const sum = next.values().reduce((sum, p) => sum + p, 0);
      log += Math.log(sum);
      states = new Map(next.entries().map(([state, p]) => [state, p / sum]));
    }
    return log + Math.log(states.entries().reduce((sum, [state, p]) => sum + p * (this.final.get(state) ?? 0), 0));
  }
}

Deno.test("the automaton recognises an ambiguous grammar", () => {
  const ambiguous: Rule[] = [
    oneOf("a", "a"),
    sequence`${oneOf("a", "ab")}${oneOf("bc", "c")}`,
    sequence`x${oneOf("", "a")}${oneOf("", "a")}y`,
  ];
  for (const rule of ambiguous) assert(new Automaton(rule).isAmbiguous());
  for (const rule of [words("ab, ac, a"), sequence`${oneOf("a", "ab")}${oneOf("c", "dc")}`]) {
    assertEquals(new Automaton(rule).isAmbiguous(), false);
  }
  // Each text alone has one derivation. But if texts are repeated, "aaa" can be a and aa, or aa and a.
  const rule = words("a, aa");
  assertEquals(new Automaton(rule).isAmbiguous(), false);
  assert(new Automaton(rule, { repeated: true }).isAmbiguous());
});

Deno.test("no text of the corpus has two derivations", () => {
  assertEquals(new Automaton(news, { repeated: true }).isAmbiguous(), false);
});

Deno.test("entropy and expected length of small grammars equal the values computed by hand", () => {
  // "a" with probability ½, "bc" or an empty text with ¼ each: entropy 1.5 ln 2. Then one of four digits, then a full stop.
  const { entropy, length } = measure([weighted([2, "a"], [1, "bc"], [1, ""]), words("1, 2, 3, 4"), "."]);
  assertAlmostEquals(entropy, 1.5 * Math.LN2 + Math.log(4), 1e-15);
  assertAlmostEquals(length, 0.5 + 0.5 + 1 + 1, 1e-15);
});

Deno.test("the corpus has the computed entropy, per item and per character", () => {
  const automaton = new Automaton(news), generator = new RandomGenerator(18), exact = measure(news);
  const n = 20_000, surprise: number[] = [], excess: number[] = [];
  for (let i = 0; i < n; i++) {
    let text = "";
    const log = derive(news, generator, (piece) => text += piece);
    // The text's probability over all derivations equals the probability of the derivation that made it.
    if (i < 200) assertAlmostEquals(automaton.logProbability(text), log, 1e-9, text);
    surprise.push(-log);
    excess.push(-log - grammarEntropy * text.length); // the expected value is 0
  }
  // The tolerance is three standard errors of the mean, which are estimated from the samples.
  const mean = (x: number[]) => x.reduce((sum, x) => sum + x) / n;
  const error = (x: number[]) => Math.sqrt((mean(x.map((x) => x * x)) - mean(x) ** 2) / n);
  assertAlmostEquals(mean(surprise), exact.entropy, 3 * error(surprise));
  assertAlmostEquals(mean(excess), 0, 3 * error(excess));
  assert(3 * error(excess) < 0.01 * exact.entropy); // the tolerance is small enough to detect an error of 1 %
  assertEquals(grammarEntropy, exact.entropy / exact.length);
});

Deno.test("the corpus has at least the requested length, ends with a whole item, and depends on its seed", () => {
  const text = grammarCorpus({ seed: 3, characters: 20_000 });
  assert(text.length >= 20_000 && text.length < 20_300);
  assert(/[.!]"?[ \n]$/.test(text));
  assert(new Automaton(news, { repeated: true }).logProbability(text) > -Infinity);
  assertEquals(grammarCorpus({ seed: 3, characters: 20_000 }), text);
  assert(grammarCorpus({ seed: 4, characters: 20_000 }) !== text);
  assert(grammarCorpus().length >= 1_000_000);
});
