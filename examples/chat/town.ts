/**
 * A small town to talk about: where its people live, which animals they have, what they make and what they like. Every
 * answer follows from the facts and has one exact wording, so a model's answer is either right or wrong.
 *
 * A question combines facts about two people. One pair of people in eight is held out: no training text, in
 * pre-training or in fine-tuning, mentions both. The model knows each of the two facts, but their combination is new.
 */
import type { Message } from "../../src/data/examples.ts";
import { RandomGenerator } from "../../src/random/mod.ts";

/** The town's people. */
export const PEOPLE = "Ada Bram Clara Dirk Edith Felix Greta Hugo Iris Jonas Karin Leo Mara Nils Olga Paul".split(" ");

/**
 * The relations between people and things. `asks` and `many` are the first word and the verb of a question, `one` is
 * the verb of an answer, and `ends` are the possible ends of an answer.
 */
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

/** Whether two people are a held-out pair, which only held-out chats mention together. */
export const isHeldOut = (a: number, b: number): boolean => (a + b) % 8 === 0;

/** A town: one thing for each person and relation, chosen at random by the seed. */
export class Town {
  readonly #ends: readonly (readonly number[])[];

  constructor(seed = 1337) {
    const generator = new RandomGenerator(seed);
    this.#ends = PEOPLE.map(() => relations.map(({ ends }) => generator.randint(ends.length)));
  }

  /** The sentence about a person and a relation, such as "Ada keeps a goat", without a full stop. */
  fact(person: number, relation: number): string {
    const { one, ends } = relations[relation];
    return `${PEOPLE[person]} ${one} ${ends[this.#ends[person][relation]]}`;
  }

  /** A text for pre-training: a person and the facts about them, in random order. */
  story(generator: RandomGenerator): string {
    const person = generator.randint(PEOPLE.length);
    const [first, second, ...more] = [...generator.randperm(relations.length)].map((relation) =>
      this.fact(person, relation)
    );
    return `Who is ${PEOPLE[person]}? ${first}, and ${second}. ${more.map((fact) => `${fact}.`).join(" ")}`;
  }

  /** The answer to a question about relation r of person a, and relation s of person b. */
  answer([a, b]: readonly number[], [r, s]: readonly number[]): string {
    return `${this.fact(a, r)}, and ${this.fact(b, s)}.`;
  }

  /**
   * A chat about two people, with one or two questions.
   *
   * @param heldOut whether the two people are a held-out pair
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
