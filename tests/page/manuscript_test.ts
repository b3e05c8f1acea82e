/** The text of *Write*: valid probabilities after a change, undo, and positions of tokens. */
import { assertEquals } from "@std/assert";
import { Manuscript, type Stretch, stretchesOf } from "../../src/page/manuscript.ts";

const stretch = (start: number, end: number, go?: number): Stretch => ({
  ...{ start, end, logprob: -1, top: [] },
  ...go !== undefined && { go },
});
const spans = (of: Manuscript) => of.draft.stretches.map(({ start, end }) => [start, end]);

Deno.test("manuscript: a probability is valid as long as the text before it is unchanged", () => {
  const manuscript = new Manuscript();
  manuscript.replace(0, 0, "one two three", [stretch(0, 3), stretch(3, 7), stretch(7, 13)]);
  manuscript.type("one two! three", 8);
  assertEquals(spans(manuscript), [[0, 3], [3, 7]]);
  manuscript.type("one to! three", 5);
  assertEquals(spans(manuscript), [[0, 3]]);
  manuscript.type("", 0);
  assertEquals(spans(manuscript), []);
});

Deno.test("manuscript: a replacement's tokens get the right positions, and the tokens after it are dropped", () => {
  const manuscript = new Manuscript();
  manuscript.replace(0, 0, "ab", [stretch(0, 1), stretch(1, 2)]);
  manuscript.replace(1, 1, "xyz", [stretch(0, 2, 7), stretch(2, 3, 7)]);
  assertEquals([manuscript.draft.text, manuscript.draft.caret, spans(manuscript)], ["axyzb", 4, [[0, 1], [1, 3], [
    3,
    4,
  ]]]);
  assertEquals([manuscript.at(1)?.end, manuscript.at(3)?.end, manuscript.at(4)], [3, 4, undefined]);
  const [own, first] = manuscript.draft.stretches;
  assertEquals(
    [manuscript.endOf(own), manuscript.endOf(first)],
    [1, 4],
    "tokens that were generated after it are replaced with it",
  );
});

Deno.test("manuscript: the letters of a word are one step of undo, and steps can be redone", () => {
  const manuscript = new Manuscript(), texts: string[] = [];
  for (const text of ["h", "hi", "hi ", "hi y", "hi yo"]) manuscript.type(text, text.length);
  manuscript.step();
  manuscript.replace(5, 5, "u", [stretch(0, 1)]);
  for (; manuscript.canUndo; texts.push(manuscript.draft.text)) manuscript.undo();
  assertEquals(texts, ["hi yo", "hi", ""]);
  for (; manuscript.canRedo; texts.push(manuscript.draft.text)) manuscript.redo();
  assertEquals(texts.slice(3), ["hi", "hi yo", "hi you"]);
  assertEquals(spans(manuscript), [[5, 6]]);
  manuscript.undo();
  manuscript.type("hi yours", 8);
  assertEquals(manuscript.canRedo, false);
});

Deno.test("manuscript: offsets are code points, and a token that is only a part of a character is left out", () => {
  const part = (tokens: string[], text_offset: number[], token_logprobs: (number | null)[]) => ({
    ...{ tokens, text_offset, token_logprobs },
    top_logprobs: tokens.map((token) => ({ [token]: -2, other: -1 })),
  });
  const parts = [
    part(["a"], [0], [null]),
    part(["😀", "bytes:\\xc3", "bytes:\\xa9"], [1, 2, 2], [-1, -2, -3]),
  ];
  assertEquals(stretchesOf("a😀é", parts).map(({ start, end, logprob }) => [start, end, logprob]), [[1, 3, -1], [
    3,
    4,
    -3,
  ]]);
  assertEquals(stretchesOf("a😀é", parts)[0].top.map(({ token }) => token), ["other", "😀"]);
});
