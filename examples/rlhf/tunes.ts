/**
 * A world of small tunes. A tune has notes out of five, and ends with a full stop. Asked for a tune that begins with a note, such as
 * `e.`, a model writes at most six tokens: `eged.` All answers can be enumerated, so that the best policy is known.
 *
 * A listener has a taste of his own, which is hidden from the models. They learn of it from his choices between two answers.
 */
import { RandomGenerator } from "@nanogpt/ts";
import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
import { type Answers, leaves, tokensOf } from "./optimum.ts";

/** The notes from low to high. */
export const NOTES = "cdega";
/** A token a character; the stop is token 0, and the notes follow in the order of the alphabet. */
export const tokenizer = CharacterTokenizer.fromText(`.${NOTES}`);
/** The token that ends a tune. */
export const END = tokenizer.encode(".")[0];
/** What there can be to answer: at most six tokens out of six, the end included. */
export const ANSWERS: Answers = { vocabSize: 6, length: 6, end: END };
/** What a model is asked: `c.` and so on. */
export const PROMPTS: readonly string[] = [...NOTES].map((note) => `${note}.`);

/** Of two in a row: up or down by one in most cases, the same note, or a leap. */
const STEP = 0.75, SAME = 0.15;

/** Draws numbers from 0 to 1. */
export function uniforms(seed: number): () => number {
  const generator = new RandomGenerator(seed), one = new Float32Array(1);
  return () => {
    generator.uniform(one);
    return one[0];
  };
}

/** A tune as people there sing it, without its stop: one to five notes, seldom with a leap. */
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
 * The hidden taste: what the listener thinks of an answer. He likes a tune that comes home, ending with the note that he asked for
 * (2), and leaps over a note or more (1.5 each), but from the third leap on it is too much for him (−6). A tune that does not begin
 * as he asked, or does not end, annoys him (−2 each).
 */
export function taste(prompt: string, answer: string): number {
  const notes = answer.replace(/\..*/, ""), places = [...notes].map((note) => NOTES.indexOf(note));
  const leaps = places.filter((place, i) => i > 0 && Math.abs(place - places[i - 1]) > 1).length;
  const home = notes.length > 1 && notes.at(-1) === prompt[0];
  const pleases = 2 * Number(home) + 1.5 * leaps - 6 * Number(leaps > 2);
  return pleases - 2 * Number(notes[0] !== prompt[0]) - 2 * Number(!answer.includes("."));
}

/** What an answer looks like: of every leaf. */
export const texts: readonly string[] = Array.from(
  { length: leaves(ANSWERS) },
  (_, leaf) => tokenizer.decode(tokensOf(leaf, ANSWERS)),
);
