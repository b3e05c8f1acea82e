/** The worlds of the examples: their best possible scores are as documented. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { isHeldOut, PEOPLE, Town } from "../../examples/chat/town.ts";
import { compare } from "../../examples/sentiment/compare.ts";
import { bayesAccuracy, review } from "../../examples/sentiment/reviews.ts";
import { createDevice } from "../../src/device/create.ts";
import { RandomGenerator } from "../../src/random/mod.ts";

Deno.test("reviews: the majority rule has the computed accuracy, and single words have no further information", () => {
  const generator = new RandomGenerator(7), count = 40_000;
  let right = 0;
  const firstWords = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const { text, label, best } = review(generator);
    right += Number(label === best);
    // Counts the second word of each review: the thing that is judged, which does not depend on the writer's mood.
    if (label === 1) firstWords.set(text.split(" ")[1], (firstWords.get(text.split(" ")[1]) ?? 0) + 1);
  }
  const deviation = Math.sqrt(bayesAccuracy * (1 - bayesAccuracy) / count);
  assertAlmostEquals(right / count, bayesAccuracy, 4 * deviation);
  // Each of twelve things has probability 1/12 in the content half.
  for (const seen of firstWords.values()) {
    assertAlmostEquals(seen / (count / 2), 1 / 12, 4 * Math.sqrt(1 / 12 / (count / 2)));
  }
  // The accuracy by enumerating all outcomes of three and of five statements.
  const counted = [3, 5].map((statements) => {
    let sum = 0;
    for (let outcome = 0; outcome < 2 ** statements; outcome++) {
      const agreeing = outcome.toString(2).replaceAll("0", "").length;
      if (2 * agreeing > statements) sum += 0.9 ** agreeing * 0.1 ** (statements - agreeing);
    }
    return sum;
  });
  assertAlmostEquals((counted[0] + counted[1]) / 2, bayesAccuracy, 1e-12);
});

Deno.test("compare: each way trains its fraction of the parameters; the majority rule is tested, too", async () => {
  using device = await createDevice("cpu", { threads: 1 });
  const sizes = { unlabelled: 160, labelled: 64, fresh: 50, epochs: 1 };
  const results = await Array.fromAsync(compare(device, sizes));
  assertEquals(results.map(({ way }) => way), ["majority rule", "pre-training", "frozen", "LoRA", "full"]);
  const generator = new RandomGenerator(3), fresh = Array.from({ length: 50 }, () => review(generator));
  assertEquals(results[0].accuracy, fresh.filter(({ label, best }) => label === best).length / 50);
  // Embeddings of 40 tokens and 32 places; two blocks of 12 · 128² weights and two norms; the last norm; the head.
  const head = 2 * 128, whole = 72 * 128 + 2 * (12 * 128 ** 2 + 2 * 128) + 128 + head;
  // A and B of rank 8 on layers of 128 inputs and 384, 128 and 512 outputs, and of 512 inputs and 128 outputs.
  const adapter = 2 * 8 * (128 + 384 + 128 + 128 + 128 + 512 + 512 + 128);
  assertEquals(results.slice(2).map(({ trained }) => trained), [head / whole, (adapter + head) / whole, 1]);
});

Deno.test("town: no training text mentions a held-out pair, and every held-out chat mentions one", () => {
  const town = new Town(), generator = new RandomGenerator(3);
  const pairs = (text: string) => [...new Set(PEOPLE.filter((person) => new RegExp(`\\b${person}\\b`).test(text)))];
  const heldOut = (text: string) => {
    const names = pairs(text).map((name) => PEOPLE.indexOf(name));
    return names.some((a, i) => names.slice(i + 1).some((b) => isHeldOut(a, b)));
  };
  for (let i = 0; i < 5000; i++) {
    assertEquals(pairs(town.story(generator)).length, 1);
    const row = town.chat(generator, false).map(({ content }) => content).join("\n");
    assertEquals(pairs(row).length, 2);
    assert(!heldOut(row), row);
    assert(heldOut(town.chat(generator, true).map(({ content }) => content).join("\n")));
  }
});

Deno.test("town: answers consist of its facts", () => {
  const town = new Town(), generator = new RandomGenerator(4);
  for (let i = 0; i < 500; i++) {
    const [question, { content }] = town.chat(generator, true);
    const told = content.replace(/\.$/, "").split(", and ");
    assertEquals(told.length, 2);
    for (const fact of told) {
      const person = PEOPLE.findIndex((name) => fact.startsWith(name));
      assert(question.content.includes(PEOPLE[person]), question.content);
      assert([0, 1, 2, 3].some((relation) => town.fact(person, relation) === fact), fact);
    }
  }
});
