/**
 * A task for reinforcement learning in which the best policy can be computed: strings of eight letters from an alphabet
 * of four, 65,536 in all; a reference model trained on random strings; and a rule that gives each string its reward.
 */
import { type Device, GPT, RandomGenerator } from "../mod.ts";
import { TokenRows } from "../src/data/mod.ts";
import { SupervisedTuning } from "../src/finetune/mod.ts";
import { train } from "../examples/rlhf/methods.ts";
import { type Answers, leaves, tokensOf } from "../examples/rlhf/optimum.ts";

/** Every string has eight letters: there is no end token. */
export const ANSWERS: Answers = { vocabSize: 4, length: 8 };
/** The prompt of every string: the letter 0. */
export const PROMPT = Int32Array.of(0);

/** The reward of each letter. */
const WORTH = [0, 0.6, 0.2, 1];
/** The reward of a string: the sum over its letters, plus 1 if its last two letters are equal. */
export const worth = (letters: ArrayLike<number>): number =>
  Array.from(letters, (letter) => WORTH[letter]).reduce((a, b) => a + b) + Number(letters[6] === letters[7]);

/** The reward of every string. */
export const rewards = (rule: (letters: number[]) => number = worth): Float64Array =>
  Float64Array.from({ length: leaves(ANSWERS) }, (_, leaf) => rule(tokensOf(leaf, ANSWERS)));

/** Probabilities of each letter (column) after each letter (row) in the texts on which the reference is trained. */
const FOLLOWS = [[0.4, 0.3, 0.2, 0.1], [0.1, 0.4, 0.3, 0.2], [0.25, 0.15, 0.4, 0.2], [0.3, 0.3, 0.1, 0.3]];

/** The config of the models: 2 layers, 32 wide. */
const SHAPE = { vocabSize: 4, blockSize: 9, nLayer: 2, nHead: 2, nEmbd: 32, bias: false };

/**
 * Trains the reference model, a copy of which is the start of every policy: a model that writes strings with the
 * probabilities {@linkcode FOLLOWS}.
 */
export async function reference(device: Device, { seed = 1337, iterations = 400 } = {}): Promise<GPT> {
  const generator = new RandomGenerator(seed), rows = new TokenRows(), uniform = new Float32Array(1);
  for (let row = 0; row < 64 * iterations; row++) {
    const ids = new Int32Array(1 + ANSWERS.length);
    ids.set(PROMPT);
    for (let t = 1; t < ids.length; t++) {
      generator.uniform(uniform);
      for (let sum = 0; ids[t] < 3 && (sum += FOLLOWS[ids[t - 1]][ids[t]]) <= uniform[0];) ids[t]++;
    }
    rows.push({ ids, learned: new Uint8Array(ids.length).fill(1) });
  }
  const model = new GPT(SHAPE, { device, seed });
  const task = new SupervisedTuning(model, { train: rows, val: rows }, { batchSize: 64, maxLength: 9, seed });
  await train(model, task, { learningRate: 3e-3, updates: iterations });
  return model;
}

/**
 * Draws pairs of strings uniformly. As in the model of Bradley and Terry, the first string of a pair is chosen with
 * probability σ(r − r'), where r and r' are the strings' rewards.
 *
 * @returns two rows per pair, first the chosen string
 */
export function pairs(count: number, { seed, reward }: { seed: number; reward: Float64Array }): TokenRows {
  const generator = new RandomGenerator(seed), rows = new TokenRows(), uniform = new Float32Array(1);
  const learned = new Uint8Array(1 + ANSWERS.length).fill(1, 1);
  while (rows.length < 2 * count) {
    const a = generator.randint(reward.length), b = generator.randint(reward.length);
    if (a === b) continue;
    generator.uniform(uniform);
    const first = uniform[0] < 1 / (1 + Math.exp(reward[b] - reward[a]));
    for (const leaf of first ? [a, b] : [b, a]) {
      rows.push({ ids: Int32Array.of(...PROMPT, ...tokensOf(leaf, ANSWERS)), learned });
    }
  }
  return rows;
}
