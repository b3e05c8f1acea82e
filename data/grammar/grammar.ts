/**
 * News from a small harbour town: a generated text of any length, to train on when no other text is available.
 *
 * Its entropy per character is known exactly (`probabilistic_grammar.ts` explains how), so the loss of a trained model
 * can be compared with the lowest loss that any model can reach. A model can learn spelling, punctuation and capitals;
 * the agreement of verbs with animals, of "it" and "them" with things, and of "her" and "his" with names; and which
 * answers fit a question. The animals, persons, things and places are drawn at random; this is the source of the
 * entropy.
 *
 * Every item begins with a capital or a quotation mark and ends with a line end or a space, and no text has two
 * derivations. A test proves this for all texts by running two copies of the grammar's automaton in parallel.
 */
import { RandomGenerator } from "../../src/random/mod.ts";
import { derive, maybe, measure, oneOf, type Rule, sequence, weighted, words } from "./probabilistic_grammar.ts";

const place = words(
  // deno-lint-ignore plain-words/words -- a part of the generated text
  "under the bridge, behind the bakery, beside the old mill, on the long pier, in the apple orchard, at the lighthouse, " +
    "between two boats, near the frozen pond, below the clock tower, in the ferryman's garden, on the chapel roof, " +
    "by the kitchen door",
);
const time = words(
  "at dawn, after supper, before the rain, in the first snow, on market day, at low tide, on quiet evenings, " +
    "when the bells ring",
);
const timeFirst = words("Every morning, Once a year, After the storm, Late at night, In early spring, On Sundays");
const adjective = words("old, small, grey, clever, sleepy, brave, hungry, polite");
const coloured = maybe(sequence`${words("red, blue, silver, yellow, green")} `);

/** Animals and their verbs, in singular and plural. */
const one = words("fox, heron, badger, owl, hare, otter, wren, toad, mole, goose, mouse, hedgehog");
const many = words("foxes, herons, badgers, owls, hares, otters, wrens, toads, moles, geese, mice, hedgehogs");
const oneDoes = words("sleeps, waits, sings, dances, listens, hums, dreams, trades secrets, plays cards, keeps watch");
const manyDo = words("sleep, wait, sing, dance, listen, hum, dream, trade secrets, play cards, keep watch");
const described = maybe(sequence`${adjective} `);
const number = words("Two, Three, Four, Seven, A dozen");

/** Things that can be lost, hidden and found, in singular and plural. */
const thing = words("lantern, kettle, violin, umbrella, compass, teapot, paper boat, snow globe, music box, left boot");
const things = words("buttons, marbles, letters, spectacles, candles, keys, pancakes, stamps, maps, mittens");
const her = words("Ada, Nora, Tove, Iris, Mirel, Greta, Wilma"),
  his = words("Otto, Bram, Jonas, Emil, Pip, Anton, Leo");
const anyone = oneOf(her, his);

const habit = oneOf(
  sequence`The ${described}${one} ${oneDoes} ${place}${maybe(sequence` ${time}`)}.`,
  sequence`${number} ${adjective} ${many} ${manyDo} ${place}.`,
  sequence`${timeFirst} the ${one} ${oneDoes} while the ${many} ${manyDo}.`,
);

function errand(name: Rule, possessive: string): Rule {
  const hides = words("hides, finds, leaves, repairs, draws"), takes = words("takes, carries, brings, sends");
  return oneOf(
    sequence`${name} ${takes} ${possessive} ${coloured}${thing} home and ${hides} it ${place}.`,
    sequence`${name} ${takes} ${possessive} ${coloured}${things} home and ${hides} them ${place}.`,
  );
}

/** Questions and answers, which agree in number. */
const question = oneOf(
  sequence`Where does the ${one} sleep? It sleeps ${place}!`,
  sequence`Where do the ${many} sleep? They sleep ${place}!`,
  sequence`Who has seen the ${things} of ${anyone}? ${oneOf("Nobody", sequence`Only the ${one}`)}!`,
);

/** Dialogues: someone asks where a thing is, or greets. Question and answer agree in number. */
const talk = oneOf(
  sequence`"Where is my ${thing}?" asks ${anyone}. "It is ${place}," says the ${one}.`,
  sequence`"Where are my ${things}?" asks ${anyone}. "They are ${place}," say the ${many}.`,
  sequence`"Good ${words("morning, evening, night")}, ${anyone}!" ${words("calls, whispers, sings")} the ${one}.`,
);

const day = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday");
const weather = words("it rains, it snows, the fog comes in, the wind turns, the sun shines, the harbour freezes");
const forecast = sequence`If ${weather} on ${day}, ${anyone} ${
  words("bakes bread, mends nets, stays in bed, rings the bell")
}.`;

/** One item of news and the separator after it. */
export const news: Rule = [
  weighted([4, habit], [2, errand(her, "her")], [2, errand(his, "his")], [2, question], [3, talk], [1, forecast]),
  weighted([3, " "], [1, "\n"]),
];

const item = measure(news);

/**
 * The entropy of the corpus in nats per character, which is the unit of the loss.
 *
 * It is the entropy of an item divided by its expected length, because items are drawn independently and their ends are
 * unambiguous. No model can have a lower loss on a long text. The loss of a model with a short context is a little
 * higher, because its blocks begin in the middle of an item.
 */
export const grammarEntropy: number = item.entropy / item.length;

/**
 * Generates news from the harbour town.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { grammarCorpus } from "./grammar.ts";
 *
 * const text = grammarCorpus({ seed: 1, characters: 1000 });
 * assertEquals(text, grammarCorpus({ seed: 1, characters: 2000 }).slice(0, text.length));
 * ```
 *
 * @param options.seed the same seed gives the same text
 * @param options.characters minimum length of the text, which ends with a whole item
 */
export function grammarCorpus(
  { seed = 1337, characters = 1_000_000 }: { seed?: number; characters?: number } = {},
): string {
  const generator = new RandomGenerator(seed), pieces: string[] = [];
  let length = 0;
  while (length < characters) {
    derive(news, generator, (piece) => {
      pieces.push(piece);
      length += piece.length;
    });
  }
  return pieces.join("");
}
