/**
 * Reward models: a reward model scores texts and is trained on rankings (Bradley and Terry 1952; Ouyang et al. 2022,
 * "Training language models to follow instructions with human feedback", arXiv:2203.02155, section 3.5). For the K ≥ 2
 * texts of a prompt, best first, with scores s, the loss is the mean over all pairs i < j of
 *
 *     −log σ(sᵢ − sⱼ − margin) + c · (sᵢ + sⱼ)²
 *
 * averaged over prompts. For K = 2 it is the loss of TRL's RewardTrainer. The margin is a difference that the scores
 * should have at least (Llama 2, arXiv:2307.09288). The first term depends only on differences of scores; the second
 * one, with weight c, pulls the mean score towards 0 (Eisenstein et al. 2023, arXiv:2312.09244). Each text goes through
 * the model once, and dropout is off.
 *
 * The score is computed from the last token's hidden state, as in transformers' `GPT2ForSequenceClassification` with
 * one label. So a text with an end token and the same text without it have different scores. Scores are not shifted to
 * mean 0 after training, because transformers' head has no bias that could store the shift.
 *
 * @see https://huggingface.co/docs/trl/reward_trainer
 */
import { paddedLengths } from "../data/token_rows.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { evaluating } from "../nn/module.ts";
import { add, concat, div, matmul, max, mul, neg, pow, reshape, slice, sub, sum } from "../ops/mod.ts";
import type { RandomGenerator } from "../random/mod.ts";
import { type LossAndOutputs, type Measures, type MicroBatch, namedMeasures, type Task } from "../train/task.ts";
import { configOf, type HeadDescription } from "./head_description.ts";
import { headBatch, HeadRows, identify } from "./head_rows.ts";
import { pooled, SequenceClassifier } from "./heads.ts";
import { greater, logSigmoids } from "./pairs.ts";
import { type RowOptions, RowTask, type Splits } from "./row_task.ts";

/** Options of {@linkcode RewardModelling}. */
export interface RewardModellingOptions extends RowOptions {
  /** Prompts in a micro-batch, each with all its texts. */ readonly batchSize: number;
  /** Maximum tokens in a text, at most the model's block size. */ readonly maxLength: number;
  /** c, the weight of the term that pulls the mean score towards 0; 0.01 is usual. Default: 0. */ readonly centering?:
    number;
  /** The padding token, which is never pooled. Default: the last token is pooled, whatever it is. */
  readonly padTokenId?: number;
  /** An existing head with one label. Default: a new head. */ readonly head?: SequenceClassifier;
  /** Draws a new head's weights. */ readonly generator?: RandomGenerator;
}

/** The description of a reward model's head, as checkpoints store it. */
export const rewardDescription = (padTokenId?: number): HeadDescription => {
  return { kind: "classify", problemType: "regression", labels: ["LABEL_0"], dropout: 0, padTokenId };
};

const MEASURES = ["accuracy", "margin", "min_reward", "mean_reward", "max_reward"] as const;

/** The number of bins for the calibration error. Each is an equal part of the probabilities from ½ to 1. */
const BINS = 10;

/**
 * A task that trains a reward model on rankings.
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { createDevice, GPT, Trainer } from "@nanogpt/ts";
 * import { HeadRows, RewardModelling } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 }), rows = new HeadRows();
 * const model = new GPT({ vocabSize: 4, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 8 }, { device });
 * for (let other = 0; other < 3; other++) { // texts that end in 3 are best
 *   rows.add([[other, 3], [other, 2], [other, 1]], { where: "a ranking", label: 0 }); // a label of 0: no margin
 * }
 * const task = new RewardModelling(model, { train: rows, val: rows }, { batchSize: 3, maxLength: 8 });
 * const options = { gradientAccumulationSteps: 1, maxIters: 30, evalInterval: 30, evalIters: 1, learningRate: 0.05, decayLr: false };
 * using trainer = new Trainer(model, task, { ...options, warmupIters: 0, finalEvaluation: true });
 * let accuracy = 0;
 * for await (const event of trainer.run()) if (event.kind === "evaluation") accuracy = event.measures.val_accuracy;
 * assert(accuracy > 0.999);
 * device.close();
 * ```
 */
export class RewardModelling extends RowTask {
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */
  readonly config: NonNullable<Task["config"]>;
  /** The head. */ override readonly module: SequenceClassifier;
  /**
   * TRL's names of the measures: the share of pairs in the right order, the mean difference of their scores, and the
   * minimum, mean and maximum of the scores.
   */
  readonly measures: readonly string[] = MEASURES;
  /** The measures that a progress line shows. */ readonly shown: readonly string[] = [
    "accuracy",
    "margin",
    "calibration_error",
  ];
  readonly #options: RewardModellingOptions;
  /** The maximum number of texts of a prompt. */ readonly #choices: number;
  readonly #vocabSize: number;

  /**
   * Creates the task, with a new head unless `options.head` is set.
   * @param model the model below the head
   * @param rows each holds two or more texts of a prompt, best first; its label is the margin, 0 for no margin
   * @throws {DataError} when a split has no rows, or a row has fewer than two texts or a text that is too long
   * @throws {ConfigError} when an option is out of its range
   */
  constructor(model: GPT, readonly rows: Splits<HeadRows>, options: RewardModellingOptions) {
    const { maxLength, centering = 0, padTokenId, head, generator } = options, { train, val } = rows;
    for (const [name, some] of Object.entries(rows)) checkRows(name, some, maxLength);
    if (!(centering >= 0 && centering < Infinity)) {
      throw new ConfigError(`centering is ${centering}; expected a number, 0 or above`);
    }
    if (head && head.score.weight.shape[0] !== 1) {
      throw new ConfigError(`The head has ${head.score.weight.shape[0]} labels; expected 1, the reward`);
    }
    const batchSize = Math.min(options.batchSize, train.length);
    super({ train: train.length, val: val.length }, { ...options, batchSize });
    this.#options = { ...options, centering, batchSize };
    this.#choices = Math.max(train.choices, val.choices);
    this.#vocabSize = model.config.vocabSize;
    this.config = { ...configOf(rewardDescription(padTokenId)), name: "reward", maxLength, centering };
    this.module = head ?? new SequenceClassifier(model, 1, { generator });
  }

  /** The mean loss over the prompts of a micro-batch, and TRL's measures of them. */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs {
    using scope = model.device.scope();
    const scores = this.#scores(model, batch), outputs = noGrad(() => measuresOf(scores, batch));
    return { loss: scope.keep(this.#loss(scores, batch)), outputs: scope.keep(outputs) };
  }
  /** The loss of a batch, and the numbers that {@linkcode measure} reads: TRL's measures, then the scores (B, K). */
  judge(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs {
    using scope = model.device.scope();
    const scores = this.#scores(model, batch), loss = this.#loss(scores, batch);
    const outputs = concat([measuresOf(scores, batch), reshape(scores, [scores.size])], { axis: 0 });
    return { loss: scope.keep(loss), outputs: scope.keep(outputs) };
  }
  #scores(model: GPT, { tokens, at, texts }: Readonly<Record<string, Tensor>>): Tensor {
    const states = evaluating(model, () => pooled(model.hidden(tokens), at)); // (R, C)
    return reshape(evaluating(this.module, () => this.module.forward(states)), texts.shape);
  }
  #loss(scores: Tensor, { pairs, divisors, margins }: Readonly<Record<string, Tensor>>): Tensor {
    const { device } = scores, { centering = 0 } = this.#options, gaps = sub(pairwise(scores, -1), margins);
    const right = slice(logSigmoids(gaps), { axis: 1, start: 0, end: 1 });
    let losses = neg(reshape(right, pairs.shape));
    if (centering > 0) losses = add(losses, mul(pow(pairwise(scores, 1), 2), device.tensor([centering], [])));
    return sum(div(sum(mul(losses, pairs), { axis: 1 }), divisors));
  }

  /**
   * TRL's measures, and the bins of the calibration error. If the scores of a pair differ by d, the model predicts that
   * the first text is better, with probability σ(d). The prediction is right if d > 0, and its confidence is σ(|d|).
   */
  measure(outputs: NumberArray, { arrays: { pairs, divisors, texts } }: MicroBatch): Measures {
    const [B, P] = pairs.shape, K = texts.shape[1], bins = new Float64Array(BINS);
    const scores = outputs.subarray(MEASURES.length);
    for (const [p, [better, worse]] of pairsOf(K).entries()) {
      for (let row = 0; row < B; row++) {
        const weight = pairs.values[row * P + p] / divisors.values[row];
        const gap = scores[row * K + better] - scores[row * K + worse], sure = 1 / (1 + Math.exp(-Math.abs(gap)));
        bins[Math.min(BINS - 1, Math.floor((2 * sure - 1) * BINS))] += weight * (Number(gap > 0) - sure);
      }
    }
    return {
      ...namedMeasures(MEASURES, outputs),
      ...namedMeasures([...bins.keys().map((bin) => `calibration ${bin}`)], bins),
    };
  }
  /**
   * Computes the expected calibration error (Guo et al. 2017, arXiv:1706.04599). Ten bins of equal width divide the
   * confidences from ½ to 1. The error is the sum over the bins of the share of pairs in the bin times |accuracy − mean
   * confidence| in the bin.
   */
  conclude(means: Measures): Measures {
    const measures: Record<string, number> = {};
    let calibration_error = 0;
    for (const [name, value] of Object.entries(means)) {
      if (name.startsWith("calibration ")) calibration_error += Math.abs(value);
      else measures[name] = value;
    }
    return { ...measures, calibration_error };
  }

  /** @internal */
  protected override tokensOf(row: number): number {
    return this.rows.train.tokens(row);
  }
  /**
   * Every micro-batch has `batchSize` prompts. A smaller one is filled up with copies of its first prompt, which have
   * weight 0.
   */
  protected override arrays(split: "train" | "val", numbers: readonly number[]): MicroBatch["arrays"] {
    const { batchSize: B, padTokenId, maxLength } = this.#options, rows = this.rows[split], K = this.#choices;
    const all = Array.from({ length: B }, (_, i) => numbers[i] ?? numbers[0]), places = pairsOf(K), P = places.length;
    const batch = { lengths: paddedLengths(maxLength), choices: K, vocabSize: this.#vocabSize, padTokenId };
    const counts = numbers.map((row) => rows.first(row + 1) - rows.first(row)), count = counts.reduce((a, b) => a + b);
    const array = (...shape: number[]) => ({ values: new Float32Array(shape.reduce((a, b) => a * b)), shape });
    const [pairs, margins, texts, divisors] = [array(B, P), array(B, P), array(B, K), array(B)];
    divisors.values.fill(1);
    for (const [i, count] of counts.entries()) {
      texts.values.fill(1, i * K, i * K + count);
      margins.values.fill(rows.labels[numbers[i]].label as number, i * P, (i + 1) * P);
      divisors.values[i] = numbers.length * count * (count - 1) / 2;
      for (const [p, [, worse]] of places.entries()) if (worse < count) pairs.values[i * P + p] = 1;
    }
    const total = { values: Float32Array.of(count), shape: [1] };
    return { ...headBatch(rows, all, batch), pairs, divisors, margins, texts, count: total };
  }

  /** Checksums of both splits: of the texts and their margins. */
  identity(): Splits<TokensIdentity> & Readonly<Record<string, TokensIdentity>> {
    return { train: identify(this.rows.train), val: identify(this.rows.val) };
  }
  /**
   * A task for estimating memory on a model like this task's: every update has one micro-batch of each possible shape.
   */
  rehearsal(model: GPT): Task {
    const { maxLength, batchSize, padTokenId } = this.#options, rows = new HeadRows(), id = padTokenId === 0 ? 1 : 0;
    const lengths = paddedLengths(maxLength), row = { where: "a rehearsal", label: 0 };
    for (const length of lengths.flatMap((length) => Array<number>(batchSize).fill(length))) {
      rows.add(Array(this.#choices).fill(new Int32Array(length).fill(id)), row);
    }
    const options = { ...this.#options, head: undefined, unfreezeEvery: 0 };
    return new RewardModelling(model, { train: rows, val: rows }, options).rehearse();
  }
}

/** All pairs of K texts, as indices. The first text of a pair is the better one. */
const pairsOf = (K: number): [better: number, worse: number][] =>
  Array.from({ length: K }, (_, i) => Array.from({ length: K - 1 - i }, (_, j): [number, number] => [i, i + 1 + j]))
    .flat();

/** For each pair, the score of its first text plus `sign` times the score of its second: (B, K) to (B, P). */
function pairwise(scores: Tensor, sign: 1 | -1): Tensor {
  const K = scores.shape[1], pairs = pairsOf(K), matrix = new Float32Array(K * pairs.length);
  for (const [p, [better, worse]] of pairs.entries()) {
    matrix[better * pairs.length + p] = 1;
    matrix[worse * pairs.length + p] = sign;
  }
  return matmul(scores, scores.device.tensor(matrix, [K, pairs.length]));
}

/** The measures of a batch, in the order of MEASURES. */
function measuresOf(
  scores: Tensor,
  { pairs, divisors, texts, count, mask }: Readonly<Record<string, Tensor>>,
): Tensor {
  const gaps = pairwise(scores, -1), ordered = greater(gaps, scores.device.tensor([0], []));
  const least = neg(max(add(neg(scores), mask))), most = max(add(scores, mask));
  const [right, margin] = [ordered, gaps].map((x) => sum(div(sum(mul(x, pairs), { axis: 1 }), divisors)));
  const numbers = [right, margin, least, div(sum(mul(scores, texts)), count), most];
  return concat(numbers.map((number) => reshape(number, [1])), { axis: 0 });
}

/** @throws {DataError} when there are no rows, or a row has fewer than two texts or a text that is too long */
function checkRows(name: string, rows: HeadRows, maxLength: number): void {
  if (rows.length === 0) {
    throw new DataError(`Reward model: there are no rows to ${name === "train" ? "train" : "evaluate"} on`);
  }
  for (const [row, { where, label }] of rows.labels.entries()) {
    const texts = rows.sequences(row), longest = Math.max(...texts.map(({ length }) => length));
    if (texts.length < 2) throw new DataError(`${where} has ${texts.length} text; expected two or more, best first`);
    if (texts.some(({ length }) => length === 0)) throw new DataError(`${where}: a text has no token`);
    if (longest > maxLength) {
      throw new DataError(`${where} has a text of ${longest} tokens; expected at most ${maxLength}`);
    }
    if (!Number.isFinite(label)) throw new DataError(`${where}: the margin is ${label}, expected a number`);
  }
}
