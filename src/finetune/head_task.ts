/**
 * A task that trains a head, together with the model below it or on a frozen model. Inputs are defined in inputs.ts,
 * labels in labels.ts and heads in heads.ts. GPT-1's form adds an auxiliary loss:
 *
 *     loss = loss of the labels + λ · loss of the next tokens        (Radford et al. 2018, equation 5)
 *
 * Accumulated gradients equal the gradient of all rows at once. (In transformers' Trainer, the accumulated gradients of
 * a classifier are too large by the number of micro-batches: huggingface/transformers #47688.)
 */
import { numbered } from "../checkpoint/hugging_face_heads.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import { paddedLengths } from "../data/token_rows.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { add, mul } from "../ops/mod.ts";
import type { RandomGenerator } from "../random/mod.ts";
import type { Measures, MicroBatch, Task } from "../train/task.ts";
import { configOf, type Head, type HeadDescription, newHead, scores } from "./head_description.ts";
import { type BatchOptions, choiceArray, choiceMask, headBatch, HeadRows, identify, labelArray } from "./head_rows.ts";
import { labelLoss, nextTokensLoss, pooled } from "./heads.ts";
import type { HeadKind, InputTokens } from "./inputs.ts";
import type { Labelling } from "./labels.ts";
import { type RowOptions, RowTask, type Splits } from "./row_task.ts";

/** Options of {@linkcode HeadTask}. */
export interface HeadTaskOptions extends RowOptions {
  /** What the head predicts. */ readonly kind: HeadKind;
  /** The meaning of the labels, from `labellingOf`; not needed for `choose`. */ readonly labelling?: Labelling;
  /** Maximum tokens in a sequence. Default: the model's block size. */ readonly maxLength?: number;
  /** GPT-1's tokens, if the rows contain them. */ readonly tokens?: InputTokens;
  /** The padding token, which is never pooled: transformers' `pad_token_id`. */ readonly padTokenId?: number;
  /** Dropout of the pooled states. Default: 0 for `classify` without GPT-1's tokens, otherwise 0.1. */
  readonly dropout?: number;
  /** λ, the weight of the auxiliary loss. Default: 0 for `classify`, 0.5 for other kinds; 0 if the model is frozen. */
  readonly lmWeight?: number;
  /** Draws a new head's weights. */ readonly generator?: RandomGenerator;
  /** An existing head. Default: a new head. */ readonly head?: Head;
  /** The rows' pooled states, from `headFeatures`. The model below the head must be frozen and does not run. */
  readonly features?: Splits<Float32Array>;
}

/** A task that trains a head on rows with labels. */
export class HeadTask extends RowTask {
  /** The head's kind, labels and tokens. */
  readonly config: NonNullable<Task["config"]>;
  /** The head. */ override readonly module: Head;
  /** The description of the head and its inputs. */ readonly description: HeadDescription;
  readonly #options: HeadTaskOptions;
  readonly #batch: BatchOptions;
  readonly #lmWeight: number;

  /**
   * Creates the task, with a new head unless `options.head` is set.
   * @param model the model below the head
   * @throws {DataError} when there are no rows, or a label is not one of the labels
   * @throws {ConfigError} when options contradict each other
   */
  constructor(model: GPT, readonly rows: Splits<HeadRows>, options: HeadTaskOptions) {
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
    if (!labelling) throw new ConfigError(`${kind}: labelling is missing; pass the result of labellingOf`);
    this.description = { kind, ...labelling, tokens, padTokenId, dropout };
    this.config = configOf(this.description);
    this.#options = options;
    const { blockSize } = model.config, { maxLength = blockSize } = options;
    for (const split of [train, val]) { // finds invalid rows before training starts
      for (let row = 0; row < split.length; row++) {
        this.#labels(split, [row]);
        const longest = Math.max(...split.sequences(row).map(({ length }) => length));
        if (longest <= maxLength) continue;
        throw new DataError(
          `${split.labels[row].where} has a sequence of ${longest} tokens; expected at most ${maxLength}`,
        );
      }
    }
    const trains = !model.parameters({ trainable: true }).next().done;
    if (features && trains) throw new ConfigError("features: the model below the head must be frozen");
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
   * A task for estimating memory on a model like this task's: every update has one micro-batch of each possible shape.
   */
  rehearsal(model: GPT): HeadTask {
    const { batchSize, features } = this.#options, { lengths, choices, padTokenId } = this.#batch;
    const { train } = this.rows, rows = new HeadRows(), id = padTokenId === 0 ? 1 : 0;
    const longest = Math.max(...[train, this.rows.val].map((split) => split.longest));
    const used = lengths.filter((_, i) => i === 0 || lengths[i - 1] < longest);
    for (const length of used) {
      for (let i = 0; i < batchSize; i++) rows.add(Array(choices).fill(Array(length).fill(id)), train.labels[0]);
    }
    const states = new Float32Array(rows.first(rows.length) * model.config.nEmbd);
    const task = new HeadTask(model, { train: rows, val: rows }, {
      ...{ ...this.#options, head: undefined, unfreezeEvery: 0, lmWeight: this.#lmWeight },
      features: features && { train: states, val: states },
    });
    const counts = [batchSize, train.length % batchSize].filter((count) => count > 0); // the last update may be smaller
    // An evaluation can reuse memory that was allocated for the first batch of an update. Here that batch has the
    // shortest rows, so the estimate contains the most additional memory that an evaluation can need.
    const batches = used.flatMap((_, i) =>
      counts.map((count): MicroBatch => {
        const numbers = Array.from({ length: count }, (_, row) => i * batchSize + row);
        return { weight: count / rows.length, arrays: task.arrays("train", numbers) };
      })
    );
    return task.rehearse(batches);
  }

  /** @internal */
  protected override tokensOf(row: number): number {
    return this.rows.train.tokens(row);
  }
  /** @internal The arrays of a micro-batch of rows. */
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

  /** The loss of the labels, plus λ times the loss of the next tokens. */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): Tensor {
    return this.judge(model, batch).loss;
  }
  /** The loss of a batch, and its scores: (B, L), or (B, K) for choices. */
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
  /**
   * Measures `accuracy`, the share of correct rows. A row with one label is correct if its label has the highest score.
   * A row with several labels is correct if exactly the scores of its labels are above 0.
   */
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

  /** Checksums of both splits: of the rows' tokens and labels. */
  identity(): Record<"train" | "val", TokensIdentity> {
    return { train: identify(this.rows.train), val: identify(this.rows.val) };
  }
}
