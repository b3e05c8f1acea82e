/**
 * A world of four letters in which the best policy is known: 65,536 strings of eight letters, a reference that was trained to write
 * some of them, and a rule that says what a string is worth.
 */
import { type Device, GPT, RandomGenerator, Trainer } from "../mod.ts";
import { TokenRows } from "../src/data/mod.ts";
import { SupervisedTuning } from "../src/finetune/mod.ts";
import { type Answers, leaves, tokensOf } from "../examples/rlhf/optimum.ts";

/** Every string has eight letters: there is no end token. */
export const ANSWERS: Answers = { vocabSize: 4, length: 8 };
/** What a model is asked: the letter 0, after which it writes a string. */
export const PROMPT = Int32Array.of(0);

/** What a letter is worth. */
const WORTH = [0, 0.6, 0.2, 1];
/** What a string is worth: its letters, and 1 more where it ends as it begins. */
export const worth = (letters: ArrayLike<number>): number =>
  Array.from(letters, (letter) => WORTH[letter]).reduce((a, b) => a + b) + Number(letters[0] === letters[7]);

/** Of every string. */
export const rewards = (rule: (letters: number[]) => number = worth): Float64Array =>
  Float64Array.from({ length: leaves(ANSWERS) }, (_, leaf) => rule(tokensOf(leaf, ANSWERS)));

/** How often a letter follows another in the texts that the reference learns from. */
const FOLLOWS = [[0.4, 0.3, 0.2, 0.1], [0.1, 0.4, 0.3, 0.2], [0.25, 0.15, 0.4, 0.2], [0.3, 0.3, 0.1, 0.3]];

/** The letters' model: 2 layers, 32 wide. */
const SHAPE = { vocabSize: 4, blockSize: 9, nLayer: 2, nHead: 2, nEmbd: 32, bias: false };

/** The first policy: a model that has learned to write strings in which letters follow each other as above. */
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
  using trainer = new Trainer(model, task, {
    ...{ learningRate: 3e-3, minLr: 3e-5, warmupIters: 20, lrDecayIters: iterations, weightDecay: 0, beta2: 0.99 },
    ...{ gradientAccumulationSteps: 1, maxIters: iterations, evalInterval: iterations, evalIters: 1 },
    finalEvaluation: true,
  });
  for await (const _ of trainer.run()); // its losses
  return model;
}

/** Another model with a model's weights. */
export async function copyOf(model: GPT): Promise<GPT> {
  const { device, config } = model, copy = new GPT(config, { device, initialize: false });
  const to = new Map(copy.namedParameters());
  for (const [name, from] of model.namedParameters()) device.write(to.get(name)!.storage, await from.data());
  return copy;
}
