/** Graders: scores computed by hand, and templates with variables only. */
import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../../src/errors.ts";
import {
  grade,
  graded,
  type Grader,
  type Similarity,
  similarity,
  substitute,
  templateFault,
} from "../../src/server/graders.ts";

const item = { answer: "Yes", inner: { list: [1, "a"], none: null }, "a-b": 5 };
const sample = (completion: string) => ({
  ...{ prompt: "?", completion, ids: new Int32Array(), from: 0, ended: true, more: { item } },
});

Deno.test("graders: variables are replaced by their values unchanged, and other expressions are refused", () => {
  const cases: [template: string, text: string][] = [
    ["{{item.answer}}: {{ sample.output_text }}.", "Yes: {{item.answer}}."],
    ["{{item.inner.list}} {{item.inner}} {{item.a-b}}", `[1,"a"] {"list":[1,"a"],"none":null} 5`],
    ["[{{item.inner.none}}{{item.other}}{{item.answer.length}}{{item.constructor.name}}{{item.__proto__}}]", "[]"],
  ];
  for (const [template, text] of cases) {
    assertEquals([substitute(template, sample("{{item.answer}}")), templateFault(template)], [text, undefined]);
  }
  for (
    const wrong of ["{{x}}", "{{item}}", "{{item.a()}}", "{{ sample.choices }}", "{{item.a | upper}}", "{{item..a}}"]
  ) {
    assertEquals(templateFault(`a ${wrong}`)?.startsWith(wrong), true, wrong);
  }
  assertEquals(graded([{ role: "user", content: "{{item.answer}}?" }], sample("")), [{
    role: "user",
    content: "Yes?",
  }]);
});

Deno.test("graders: a string check tests for equality, or whether one text contains the other", () => {
  const check = (operation: Extract<Grader, { type: "string_check" }>["operation"], text: string) => {
    const sides = { input: "{{sample.output_text}}", reference: "{{item.answer}}" };
    return grade({ type: "string_check", name: "g", operation, ...sides }, sample(text));
  };
  const scores = (text: string) => (["eq", "ne", "like", "ilike"] as const).map((operation) => check(operation, text));
  assertEquals(scores("Yes"), [1, 0, 1, 1]);
  assertEquals(scores("Oh Yes!"), [0, 1, 1, 1]);
  assertEquals(scores("yes"), [0, 1, 0, 1]);
  assertEquals(scores("no"), [0, 1, 0, 0]);
});

Deno.test("graders: similarities equal values computed by hand", () => {
  const cases: [metric: Similarity, text: string, reference: string, score: number][] = [
    ["fuzzy_match", "kitten", "sitting", 2 * 4 / 13], // common letters: i t t n
    ["fuzzy_match", "", "", 1],
    ["fuzzy_match", "😀a", "😀b", 2 / 4],
    ["rouge_1", "The cat sat.", "the cat", 4 / 5],
    ["rouge_1", "a a a", "a", 2 / 4], // one of the three words is common
    ["rouge_2", "the cat sat", "the cat", 2 / 3],
    ["rouge_5", "a b", "a b", 1], // neither has a 5-gram
    ["rouge_l", "a b c d", "a c b d", 6 / 8],
    ["bleu", "a b c d e", "a b c d f", (4 / 5 * (4 / 5) * (3 / 4) * (2 / 3)) ** 0.25],
    ["bleu", "a b", "a b c d", (1 * (2 / 2) * (1 / 1) * (1 / 1)) ** 0.25 * Math.exp(1 - 4 / 2)],
    ["bleu", "x y", "a b", 0],
    ["gleu", "a b c d e", "a b c d f", (4 + 3 + 2 + 1) / (5 + 4 + 3 + 2)],
    ["gleu", "a b", "a b c d", (2 + 1) / (4 + 3 + 2 + 1)],
  ];
  for (const [metric, text, reference, score] of cases) {
    assertAlmostEquals(similarity(metric, text, reference), score, 1e-12, `${metric} ${text}`);
  }
});

Deno.test("graders: a text has a limit after substitution", () => {
  const many = (count: number) => substitute("{{sample.output_text}}".repeat(count), { completion: "x".repeat(1002) });
  assertEquals(many(1024).length, 1002 * 1024); // a variable and its value count as 22 + 1002 = 1024 characters
  assertThrows(() => many(1025), DataError, "more than 1048576 characters");
});
