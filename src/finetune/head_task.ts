/**
 * Training a head, with the model below it or on it alone: a task for the trainer. What it is asked (inputs.ts), what its labels are
 * (labels.ts) and the head itself (heads.ts) stand apart; GPT-1's form adds its auxiliary loss,
 *
 *     loss = loss of the labels + λ · loss of the next tokens        (Radford et al. 2018, equation 5)
 *
 * Accumulated gradients are those of all rows at once. (In transformers' Trainer those of a classifier are too large by the number
 * of micro-batches: huggingface/transformers #47688.)
 */
import { numbered } from "../checkpoint/hugging_face_heads.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import { paddedLengths } from "../data/token_rows.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { add } from "../ops/add.ts";
import { mul } from "../ops/mul.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { Measures, MicroBatch, Task } from "../train/task.ts";
import { configOf, type Head, type HeadDescription, newHead, scores } from "./head_description.ts";
import { type BatchOptions, choiceArray, choiceMask, headBatch, HeadRows, identify, labelArray } from "./head_rows.ts";
import { labelLoss, nextTokensLoss, pooled } from "./heads.ts";
import type { HeadKind, InputTokens } from "./inputs.ts";
import type { Labelling } from "./labels.ts";
import { type RowOptions, RowTask, type Splits } from "./row_task.ts";

/** Rows to train on and to evaluate on. */
export type HeadSplits<T = HeadRows> = Splits<T>;

/** How {@linkcode HeadTask} trains. */
export interface HeadTaskOptions extends RowOptions {
  /** What is asked. */ readonly kind: HeadKind;
  /** What labels mean, as `labellingOf` finds it; not for `choose`. */ readonly labelling?: Labelling;
  /** Tokens of the longest sequence; default: the model's block size. */ readonly maxLength?: number;
  /** GPT-1's tokens, where the rows were made with them. */ readonly tokens?: InputTokens;
  /** What fills rows up, and is never pooled: transformers' `pad_token_id`. */ readonly padTokenId?: number;
  /** Of the pooled states; default 0 for transformers' classifier, else 0.1. */ readonly dropout?: number;
  /** λ; default 0 for `classify`, 0.5 for the other three. It is 0 where nothing of the model is trained. */
  readonly lmWeight?: number;
  /** Draws a new head's weights. */ readonly generator?: RandomGenerator;
  /** A head that there is already. */ readonly head?: Head;
  /** The rows' pooled states, as `headFeatures` computes them: then the model below the head, which is frozen, never runs. */
  readonly features?: HeadSplits<Float32Array>;
}

/** Trains a head on rows with labels. */
export class HeadTask extends RowTask {
  /** Its kind, labels and tokens. */ readonly config: NonNullable<Task["config"]>;
  /** The head. */ override readonly module: Head;
  /** What it is. */ readonly description: HeadDescription;
  readonly #options: HeadTaskOptions;
  readonly #batch: BatchOptions;
  readonly #lmWeight: number;

  /**
   * A task on rows, with a new head unless one is given.
   * @param model below the head
   * @throws {DataError} when there are no rows, or a label is not one of the labels
   * @throws {ConfigError} when options contradict each other
   */
  constructor(model: GPT, readonly rows: HeadSplits, options: HeadTaskOptions) {
    const { kind, tokens, padTokenId, features } = options, { train, val } = rows;
    for (const [name, { length }] of Object.entries(rows)) {
      if (length === 0) {
        throw new DataError(`${kind}: there are no rows to ${name === "train" ? "train" : "evaluate"} on`);
      }
    }
    super({ train: train.length, val: val.length }, options);
    const { dropout = kind === "classify" && !tokens ? 0 : 0.1, lmWeight = kind === "classify" ? 0 : 0.5 } = options;
    const choices = Math.max(train.choices, val.choices), choosing = kind === "choose";
    const labelling = options.labelling ??
      (choosing ? { problemType: "single_label_classification" as const, labels: numbered(choices) } : undefined);
    if (!labelling) throw new ConfigError(`${kind}: labelling is missing; labellingOf finds out what the labels mean`);
    this.description = { kind, ...labelling, tokens, padTokenId, dropout };
    this.config = configOf(this.description);
    this.#options = options;
    const { blockSize } = model.config, { maxLength = blockSize } = options;
    for (const split of [train, val]) { // before hours of training, not after
      for (let row = 0; row < split.length; row++) {
        this.#labels(split, [row]);
        const longest = Math.max(...split.sequences(row).map(({ length }) => length));
        if (longest <= maxLength) continue;
        throw new DataError(
          `${split.labels[row].where} has ${longest} tokens, more than the ${maxLength} of a sequence`,
        );
      }
    }
    const trains = !model.parameters({ trainable: true }).next().done;
    if (features && trains) throw new ConfigError("features: the model below the head has to be frozen");
    this.#lmWeight = trains ? lmWeight : 0;
    this.#batch = {
      lengths: paddedLengths(maxLength),
      choices,
      vocabSize: model.config.vocabSize,
      padTokenId,
      nextTokens: this.#lmWeight > 0,
    };
    this.module = options.head ?? newHead(model, this.description, options);
  }

  /**
   * A task like this one, on a model like this one's: its batches have every shape that this one's may have, and each update has
   * all of them. For the memory that they take.
   */
  rehearsal(model: GPT): HeadTask {
    const { batchSize, features } = this.#options, { lengths, choices, padTokenId } = this.#batch;
    const { train } = this.rows, rows = new HeadRows(), id = padTokenId === 0 ? 1 : 0;
    const longest = Math.max(...[train, this.rows.val].map((split) => split.longest));
    const used = lengths.filter((_, i) => i === 0 || lengths[i - 1] < longest);
    for (const length of used) {
      for (let i = 0; i < batchSize; i++) rows.add(Array(choices).fill(Array(length).fill(id)), train.labels[0]);
    }
    const fewer = train.length % batchSize, splits = { train: rows, val: rows };
    const states = new Float32Array(rows.first(rows.length) * model.config.nEmbd);
    return new Rehearsal(model, splits, {
      ...this.#options,
      head: undefined,
      unfreezeEvery: 0,
      lmWeight: this.#lmWeight,
      features: features && { train: states, val: states },
    }, fewer);
  }

  /** @internal The arrays of some rows. */
  protected override arrays(split: "train" | "val", numbers: readonly number[]): MicroBatch["arrays"] {
    const rows = this.rows[split], labels = this.#labels(rows, numbers), { features } = this.#options;
    if (!features) return { ...headBatch(rows, numbers, this.#batch), labels };
    const { choices } = this.#batch, R = numbers.length * choices;
    const all = features[split], width = all.length / rows.first(rows.length), values = new Float32Array(R * width);
    for (const [i, row] of numbers.entries()) {
      values.set(all.subarray(rows.first(row) * width, rows.first(row + 1) * width), i * choices * width);
    }
    const seen = { values, shape: [R, width] };
    return choices > 1
      ? { features: seen, mask: choiceMask(rows, numbers, choices), labels }
      : { features: seen, labels };
  }
  #labels(rows: HeadRows, numbers: readonly number[]) {
    const { description } = this;
    return description.kind === "choose" ? choiceArray(rows, numbers) : labelArray(rows, numbers, description);
  }

  /** The loss of the labels, and of the next tokens where these count. */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): Tensor {
    return this.judge(model, batch).loss;
  }
  /** The same loss, and the scores: (B, L), or (B, K) of choices. */
  judge(model: GPT, batch: Readonly<Record<string, Tensor>>): { loss: Tensor; outputs: Tensor } {
    const { tokens, at, features, mask, labels, targets, counted, divisors } = batch;
    using scope = model.device.scope();
    const hidden = features ? undefined : model.hidden(tokens); // (R, T, C)
    const states = features ?? pooled(hidden!, at); // (R, C)
    const outputs = scores(this.module, this.description, states, mask);
    let loss = labelLoss(outputs, labels, this.description.problemType);
    if (targets) {
      const next = nextTokensLoss(model.lm_head.forward(hidden!), { targets, counted, divisors });
      loss = add(loss, mul(next, model.device.tensor([this.#lmWeight], [])));
    }
    return { loss: scope.keep(loss), outputs: scope.keep(outputs) };
  }
  /** `accuracy`: the share of rows of which the greatest score is the label's, or all scores are above 0 whose labels hold. */
  measure(outputs: NumberArray, { arrays: { labels: { values, shape } } }: MicroBatch): Measures {
    const { problemType } = this.description, [B] = shape, L = outputs.length / B;
    if (problemType === "regression") return {};
    const single = problemType === "single_label_classification";
    let right = 0;
    for (let row = 0; row < B; row++) {
      const scores = outputs.subarray(row * L, (row + 1) * L);
      const holds = single
        ? scores.indexOf(Math.max(...scores)) === values[row]
        : scores.every((score, id) => score > 0 === values[row * L + id] > 0);
      if (holds) right++;
    }
    return { accuracy: right / B };
  }

  /** Of the rows of both splits, with their labels. */
  identity(): Record<keyof HeadSplits, TokensIdentity> {
    return { train: identify(this.rows.train), val: identify(this.rows.val) };
  }
}

/** Draws every batch for every update, and of each shape one with `fewer` rows. */
class Rehearsal extends HeadTask {
  constructor(model: GPT, rows: HeadSplits, readonly options: HeadTaskOptions, readonly fewer: number) {
    super(model, rows, options);
  }
  override *draw(): Generator<MicroBatch> {
    const { batchSize } = this.options, length = this.rows.train.length;
    for (let first = 0; first < length; first += batchSize) {
      for (const count of [batchSize, this.fewer]) {
        const numbers = Array.from({ length: count }, (_, i) => first + i);
        if (count > 0) yield { arrays: this.arrays("train", numbers), weight: count / length };
      }
    }
  }
  /** An evaluation works in the memory of the update's first shape: the shortest here, so that it takes the most besides. */
  override evaluate(): Generator<MicroBatch> {
    return this.draw();
  }
}
