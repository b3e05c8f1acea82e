/**
 * A world of small tunes. A tune is a sequence of notes, each one of five, and ends with a full stop. A prompt such as
 * `e.` asks for a tune that begins with this note, and a model answers with at most six tokens: `eged.` All possible
 * answers can be enumerated, so the best policy is known.
 *
 * A listener has a taste that is hidden from the models. They learn it from the listener's choices between two answers.
 */
import { RandomGenerator } from "@nanogpt/ts";
import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
import { type Answers, leaves, tokensOf } from "./optimum.ts";

/** The notes from low to high. */
export const NOTES = "cdega";
/** Every character is a token: the full stop is token 0, and the notes follow in alphabetical order. */
export const tokenizer = CharacterTokenizer.fromText(`.${NOTES}`);
/** The token that ends a tune. */
export const END = tokenizer.encode(".")[0];
/** All possible answers: at most six tokens, the end included, out of a vocabulary of six. */
export const ANSWERS: Answers = { vocabSize: 6, length: 6, end: END };
/** The prompts: `c.`, `d.` and so on. */
export const PROMPTS: readonly string[] = [...NOTES].map((note) => `${note}.`);

/** Probabilities that the next note is one step up or down, and that it is the same note; otherwise it is a leap. */
const STEP = 0.75, SAME = 0.15;

/** Returns a function that draws uniform numbers in [0, 1). */
export function uniforms(seed: number): () => number {
  const generator = new RandomGenerator(seed), one = new Float32Array(1);
  return () => {
    generator.uniform(one);
    return one[0];
  };
}

/** Generates a tune of one to five notes, without its full stop. Leaps are rare. */
export function tune(draw: () => number, first = NOTES[Math.floor(5 * draw())]): string {
  let notes = first;
  while (notes.length < 5 && draw() > 0.15) {
    const at = NOTES.indexOf(notes.at(-1)!), way = draw();
    const near = [at - 1, at + 1].filter((place) => NOTES[place]),
      far = [0, 1, 2, 3, 4].filter((n) => Math.abs(n - at) > 1);
    const places = way < STEP ? near : way < STEP + SAME ? [at] : far;
    notes += NOTES[places[Math.floor(places.length * draw())]];
  }
  return notes;
}

/**
 * The hidden taste: the listener's score of an answer. The listener likes a tune that ends with the requested first
 * note (2), and leaps over at least one note (1.5 each), but dislikes three or more leaps (−6). A tune that does not
 * begin with the requested note, or that does not end, is also disliked (−2 each).
 */
export function taste(prompt: string, answer: string): number {
  const notes = answer.replace(/\..*/, ""), places = [...notes].map((note) => NOTES.indexOf(note));
  const leaps = places.filter((place, i) => i > 0 && Math.abs(place - places[i - 1]) > 1).length;
  const home = notes.length > 1 && notes.at(-1) === prompt[0];
  const pleases = 2 * Number(home) + 1.5 * leaps - 6 * Number(leaps > 2);
  return pleases - 2 * Number(notes[0] !== prompt[0]) - 2 * Number(!answer.includes("."));
}

/** The text of every leaf of the tree of answers. */
export const texts: readonly string[] = Array.from(
  { length: leaves(ANSWERS) },
  (_, leaf) => tokenizer.decode(tokensOf(leaf, ANSWERS)),
);
