/**
 * Compares three ways to fine-tune a pre-trained model on labels with the best accuracy that any classifier can have.
 *
 * A small language model is trained on reviews (reviews.ts) without labels. From its weights three classifiers are
 * trained on the same labelled reviews: a head on the frozen model, a head with LoRA, and a head with all weights. They
 * are tested on new reviews, together with the majority rule, which no classifier beats on average.
 *
 *     deno run examples/sentiment/compare.ts
 *
 * It needs no permissions. On processors with AVX2, V8's flags turn on wider kernels:
 *
 *     DENO_V8_FLAGS=$(deno run --allow-env=NANOGPT_WIDE src/cli/v8_flags.ts) deno run examples/sentiment/compare.ts
 */
import { createDevice, type Device, GPT, RandomGenerator, type Tensor, Trainer } from "@nanogpt/ts";
import { TokenRows } from "@nanogpt/ts/data";
import {
  applyLora,
  HeadRows,
  headScores,
  HeadTask,
  inputsOf,
  SupervisedTuning,
  trainLastBlocks,
} from "@nanogpt/ts/finetune";
import { WordTokenizer } from "@nanogpt/ts/tokenizer";
import { bayesAccuracy, type Review, review } from "./reviews.ts";

/** The result of a classifier. */
export interface Result {
  /** How the classifier was made, such as `LoRA`; or `pre-training`, which has no accuracy. */ readonly way: string;
  /** Fraction of the test reviews that the classifier labels correctly. */ readonly accuracy?: number;
  /** Fraction of the parameters that were trained. */ readonly trained?: number;
  /** Duration of the training. */ readonly seconds?: number;
}

/** Numbers of reviews (`fresh`: for the test), and the number of passes over the labelled reviews. */
export const SIZES = { unlabelled: 20_000, labelled: 20_000, fresh: 2000, epochs: 5 };

const BATCH = 32;

/** Pre-trains a model, fine-tunes it in three ways, and tests each. */
export async function* compare(device: Device, sizes = SIZES): AsyncGenerator<Result> {
  const unlabelled = reviews(1, sizes.unlabelled),
    labelled = reviews(2, sizes.labelled),
    fresh = reviews(3, sizes.fresh);
  // A word with the space before it is a token; five statements of six tokens and the end of the line fit into a block.
  const words = new Set(unlabelled.map(({ text }) => `${text}\n`).join("").match(/ ?\w+|\.|\n/g));
  const tokenizer = new WordTokenizer({ words: [...words] });
  const shape = { vocabSize: tokenizer.vocabSize, blockSize: 32, nLayer: 2, nHead: 4, nEmbd: 128, bias: false };
  const model = new GPT(shape, { device, seed: 1337 }), base = [...model.parameters()];

  const train = async (task: SupervisedTuning | HeadTask, learningRate: number, maxIters: number) => {
    const rates = { learningRate, minLr: learningRate / 10, warmupIters: 100, lrDecayIters: maxIters, weightDecay: 0 };
    const ends = {
      maxIters,
      evalInterval: maxIters,
      evalIters: 1,
      finalEvaluation: true,
      gradientAccumulationSteps: 1,
    };
    using trainer = new Trainer(model, task, { ...rates, ...ends, beta2: 0.99 });
    const begin = performance.now();
    for await (const _ of trainer.run()); // trains; the events are not needed
    return (performance.now() - begin) / 1000;
  };

  const texts = new TokenRows();
  for (const { text } of unlabelled) {
    const ids = tokenizer.encode(`${text}\n`);
    texts.push({ ids, learned: new Uint8Array(ids.length).fill(1) });
  }
  const writing = new SupervisedTuning(model, { train: texts, val: texts }, { batchSize: BATCH, maxLength: 32 });
  const seconds = await train(writing, 1e-3, Math.ceil(unlabelled.length / BATCH));
  yield { way: "majority rule", accuracy: share(fresh, ({ best }) => best) };
  yield { way: "pre-training", seconds };

  const rows = { train: asRows(labelled, tokenizer), val: asRows(fresh, tokenizer) };
  const labelling = { problemType: "single_label_classification", labels: ["not content", "content"] } as const;
  const tune = async (way: string, learningRate: number): Promise<Result> => {
    const task = new HeadTask(model, rows, { kind: "classify", labelling, batchSize: BATCH });
    const seconds = await train(task, learningRate, sizes.epochs * task.microBatches("train"));
    const scores = await headScores(model, task.module, { description: task.description, rows: rows.val });
    const accuracy = share(fresh, (_, i) => Number(scores[i][1] > scores[i][0]));
    const trainable = [...model.parameters({ trainable: true }), ...task.module.parameters()];
    return { way, accuracy, trained: count(trainable) / (count(base) + count(task.module.parameters())), seconds };
  };
  // The first two do not change the model's weights, so each of the three begins with the pre-trained weights.
  trainLastBlocks(model, 0);
  yield await tune("frozen", 1e-2);
  const lora = applyLora(model, { rank: 8, alpha: 16, targets: "all-linear" });
  yield await tune("LoRA", 3e-3);
  lora.remove();
  model.unfreeze();
  yield await tune("full", 1e-3);
}

function reviews(seed: number, count: number): Review[] {
  const generator = new RandomGenerator(seed);
  return Array.from({ length: count }, () => review(generator));
}

function asRows(reviews: readonly Review[], tokenizer: WordTokenizer): HeadRows {
  const rows = new HeadRows();
  for (const [i, { text, label }] of reviews.entries()) {
    const row = { kind: "label", where: `review ${i}`, text, label } as const;
    rows.add(inputsOf(row, { kind: "classify", tokenizer, maxLength: 32 }).sequences, row);
  }
  return rows;
}

const share = (all: readonly Review[], says: (one: Review, i: number) => number) =>
  all.filter((one, i) => says(one, i) === one.label).length / all.length;
const count = (parameters: Iterable<Tensor>) => [...parameters].reduce((sum, { size }) => sum + size, 0);

if (import.meta.main) {
  using device = await createDevice("cpu");
  const percent = (value: number | undefined, digits: number) =>
    (value === undefined ? "" : `${(100 * value).toFixed(digits)} %`).padStart(10);
  console.log(`The best possible accuracy is ${percent(bayesAccuracy, 1).trim()} on average.\n`);
  console.log("way             accuracy   trained   seconds");
  for await (const { way, accuracy, trained, seconds } of compare(device)) {
    console.log(way.padEnd(14) + percent(accuracy, 1) + percent(trained, 2) + (seconds?.toFixed(0) ?? "").padStart(10));
  }
}
