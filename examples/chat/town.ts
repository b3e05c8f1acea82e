/**
 * A small town to talk about: where its people live, what they keep, what they make and what they like. Every answer follows
 * from the facts and is exact, so that a model is right or wrong, letter by letter.
 *
 * A question combines what two people do. One pair of people in eight is held out: no text that a model is trained on, before or
 * during tuning, speaks of both. Each of the two facts is known from elsewhere; their combination is new.
 */
import type { Message } from "../../src/data/examples.ts";
import { RandomGenerator } from "../../src/random/mod.ts";

/** Who lives there. */
export const PEOPLE = "Ada Bram Clara Dirk Edith Felix Greta Hugo Iris Jonas Karin Leo Mara Nils Olga Paul".split(" ");

/** What one can say of somebody: the words of a question, of an answer, and what may stand at its end. */
const relations = [
  {
    asks: "where",
    one: "lives at",
    many: "live",
    ends: "the mill, the pier, the quay, the inn, the chapel, the forge",
  },
  { asks: "what", one: "keeps", many: "keep", ends: "a goat, a heron, a fox, an owl, a hare, a snail" },
  { asks: "what", one: "makes", many: "make", ends: "bread, ropes, boats, clocks, shoes, candles" },
  { asks: "what", one: "likes", many: "like", ends: "pears, soup, honey, plums, cheese, snow" },
].map(({ ends, ...relation }) => ({ ...relation, ends: ends.split(", ") }));

/** Whether two people stand together in held-out questions alone. */
export const isHeldOut = (a: number, b: number): boolean => (a + b) % 8 === 0;

/** A town: which of its ends each relation has for each person. Another seed gives another town. */
export class Town {
  readonly #ends: readonly (readonly number[])[];

  constructor(seed = 1337) {
    const generator = new RandomGenerator(seed);
    this.#ends = PEOPLE.map(() => relations.map(({ ends }) => generator.randint(ends.length)));
  }

  /** "Ada keeps a goat" */
  fact(person: number, relation: number): string {
    const { one, ends } = relations[relation];
    return `${PEOPLE[person]} ${one} ${ends[this.#ends[person][relation]]}`;
  }

  /** A text to train on before any chat: one person, and what is true of them, in any order. */
  story(generator: RandomGenerator): string {
    const person = generator.randint(PEOPLE.length);
    const [first, second, ...more] = [...generator.randperm(relations.length)].map((relation) =>
      this.fact(person, relation)
    );
    return `Who is ${PEOPLE[person]}? ${first}, and ${second}. ${more.map((fact) => `${fact}.`).join(" ")}`;
  }

  /** What is answered for two people, each with a relation of their own. */
  answer([a, b]: readonly number[], [r, s]: readonly number[]): string {
    return `${this.fact(a, r)}, and ${this.fact(b, s)}.`;
  }

  /**
   * A chat about two people, of one question or two.
   *
   * @param heldOut whether the two are a pair that is held out
   */
  chat(generator: RandomGenerator, heldOut: boolean): Message[] {
    let pair: number[];
    do pair = [...generator.randperm(PEOPLE.length).slice(0, 2)]; while (isHeldOut(pair[0], pair[1]) !== heldOut);
    const [a, b] = pair.map((person) => PEOPLE[person]);
    const [r, s] = [0, 0].map(() => generator.randint(relations.length));
    const capital = (text: string) => text[0].toUpperCase() + text.slice(1);
    const asks = (relation: number, who: string) =>
      `${relations[relation].asks} does ${who} ${relations[relation].many}`;
    const question = r === s
      ? capital(`${relations[r].asks} do ${a} and ${b} ${relations[r].many}?`)
      : capital(`${asks(r, a)}, and ${asks(s, b)}?`);
    const first = [{ role: "user", content: question }, { role: "assistant", content: this.answer(pair, [r, s]) }];
    if (generator.randint(2) === 0) return first;
    const next = generator.randint(relations.length);
    return [
      ...first,
      { role: "user", content: `And ${relations[next].asks} do they ${relations[next].many}?` },
      { role: "assistant", content: this.answer(pair, [next, next]) },
    ];
  }
}
