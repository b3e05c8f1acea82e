/**
 * Heads that predict labels or choices from a GPT's hidden states: transformers' `GPT2ForSequenceClassification` and
 * `GPT2DoubleHeadsModel` (https://huggingface.co/docs/transformers/model_doc/gpt2), and GPT-1's head, which is the
 * head for sequence classification with a bias and dropout (Radford et al. 2018, "Improving Language Understanding by
 * Generative Pre-Training", section 3.2).
 *
 * A head is a module of its own. Its input is one hidden state of each sequence, the pooled state. The tensor `at`
 * selects it. Letters in shapes: R sequences of T tokens, C channels, L labels, B examples of K choices.
 */
import type { ProblemType } from "../checkpoint/hugging_face_heads.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { Dropout, Linear, Module } from "../nn/mod.ts";
import {
  add,
  crossEntropy,
  div,
  embedding,
  exp,
  gather,
  log,
  logSoftmax,
  maximum,
  mean,
  mul,
  neg,
  reshape,
  sub,
  sum,
} from "../ops/mod.ts";
import type { Tensor } from "../engine/tensor.ts";
import { RandomGenerator } from "../random/mod.ts";
import { lastToken } from "./head_rows.ts";

export type { ProblemType };

/** Options of a head. */
export interface HeadOptions {
  /** Draws the initial weights from N(0, 0.02). Default: seeded with 1337. */
  readonly generator?: RandomGenerator;
  /** false skips initialisation: use it if you will load the weights. Default: true. */
  readonly initialize?: boolean;
  /**
   * Dropout of the pooled states in training. Default: 0 for {@linkcode SequenceClassifier}, 0.1 for {@linkcode
   * DoubleHeads}.
   */
  readonly dropout?: number;
}

/**
 * Computes a score for each label: pooled · Wᵀ, the head of `GPT2ForSequenceClassification`. Its parameter is
 * `score.weight` (L, C).
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT } from "@nanogpt/ts";
 * import { lastTokens, pooled, SequenceClassifier } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * const head = new SequenceClassifier(model, 3), rows = [[5, 6, 7], [8, 9, 0]]; // the last 0 is padding
 * const tokens = device.tensor(rows.flat(), [2, 3], { dtype: "i32" });
 * const at = device.tensor(lastTokens(rows, 0), [2], { dtype: "i32" });
 * assertEquals(head.forward(pooled(model.hidden(tokens), at)).shape, [2, 3]);
 * device.close();
 * ```
 */
export class SequenceClassifier extends Module {
  /** (L, C) */ readonly score: Linear;
  /** Dropout of the pooled states. */ readonly dropout: Dropout;

  /**
   * Creates a head for a model's hidden states.
   * @param labels the number of labels; 1 to predict a number
   * @param options.bias whether the head has `score.bias`, as in GPT-1; default: false
   */
  constructor(
    model: GPT,
    labels: number,
    { bias = false, dropout = 0, ...options }: HeadOptions & { bias?: boolean } = {},
  ) {
    super();
    this.dropout = new Dropout(dropout, model.noise);
    this.score = linear(model, labels, bias, options);
  }
  /**
   * Computes a score for each label.
   * @param states f32 (R, C), from {@linkcode pooled}
   * @returns f32 (R, L)
   */
  forward(states: Tensor): Tensor {
    return this.score.forward(this.dropout.forward(states));
  }
}

/**
 * Computes a score for each choice: the second head of `GPT2DoubleHeadsModel`, whose first head is the language
 * modelling head. Its parameters are `multiple_choice_head.summary.weight` (1, C) and `.bias` (1).
 */
export class DoubleHeads extends Module {
  /** The layers, under their name in transformers. */
  readonly multiple_choice_head: { readonly summary: Linear; readonly first_dropout: Dropout };

  /** Creates a head for a model's hidden states. */
  constructor(model: GPT, { dropout = 0.1, ...options }: HeadOptions = {}) {
    super();
    this.multiple_choice_head = {
      summary: linear(model, 1, true, options),
      first_dropout: new Dropout(dropout, model.noise),
    };
  }
  /**
   * Computes a score for each choice.
   * @param states f32 (R, C) with R = B · K
   * @param choices K
   * @param shared whether the choices of an example share a dropout mask, as in GPT-1; default: false
   * @returns f32 (B, K)
   */
  forward(states: Tensor, { choices, shared = false }: { choices: number; shared?: boolean }): Tensor {
    const { summary, first_dropout } = this.multiple_choice_head, [R, C] = states.shape, B = R / choices;
    const kept = shared && first_dropout.active
      ? mul(reshape(states, [B, choices, C]), first_dropout.forward(ones(states, [B, 1, C])))
      : first_dropout.forward(states);
    return reshape(summary.forward(kept), [B, choices]);
  }
}

function linear(model: GPT, outputs: number, bias: boolean, { generator, initialize = true }: HeadOptions): Linear {
  if (!(Number.isSafeInteger(outputs) && outputs > 0)) {
    throw new ConfigError(`A head has ${outputs} labels; expected a whole number above 0`);
  }
  const layer = new Linear(model.config.nEmbd, outputs, { device: model.device, bias, initialize: false });
  if (!initialize) return layer;
  const from = generator ?? new RandomGenerator(1337);
  model.device.fill(layer.weight.storage, (values) => from.normal(values, 0, 0.02));
  if (layer.bias) model.device.fill(layer.bias.storage, () => {}); // zeros
  return layer;
}

const ones = ({ device }: Tensor, shape: number[]): Tensor =>
  device.tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(1), shape);

/**
 * Selects the hidden states that are a head's input: row r of the result is row `at[r]` of all B · T hidden states.
 *
 * @param hidden f32 (B, T, C), from `model.hidden`
 * @param at i32 (R), from 0 to B · T − 1
 * @returns f32 (R, C)
 */
export function pooled(hidden: Tensor, at: Tensor): Tensor {
  using scope = hidden.device.scope();
  const [B, T, C] = hidden.shape;
  return scope.keep(embedding(at, reshape(hidden, [B * T, C])));
}

/**
 * Finds the token of each row that transformers pools: the rightmost one that is not padding, as an index among all B ·
 * T tokens. Rows may be padded on either side. If a text itself ends with the padding token, the token before it is
 * pooled.
 *
 * @param rows rows of ids, all of length T
 * @param padTokenId the padding token; default: the last token of each row is pooled
 * @throws {DataError} when a row consists of padding
 */
export function lastTokens(rows: readonly ArrayLike<number>[], padTokenId?: number): Int32Array {
  return Int32Array.from(rows, (row, i) => {
    const last = lastToken(row, padTokenId);
    if (last >= 0) return i * row.length + last;
    throw new DataError(`row ${i} is nothing but padding (token ${padTokenId}): a classifier has no token to look at`);
  });
}

/**
 * Computes the mean loss of scores. It is cross-entropy for one label per row; binary cross-entropy,
 * max(s, 0) − s · y + log(1 + exp(−|s|)), for several labels; and the squared error (s − y)² for regression.
 *
 * @param scores f32 (B, L)
 * @param labels if each row has one label, i32 (B): the row's class, or −100 to ignore the row; otherwise f32 (B, L)
 * @returns the loss, ()
 * @see https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html
 */
export function labelLoss(scores: Tensor, labels: Tensor, type: ProblemType): Tensor {
  if (type === "single_label_classification") return crossEntropy(scores, labels);
  using scope = scores.device.scope();
  if (type === "regression") {
    const error = sub(scores, labels);
    return scope.keep(mean(mul(error, error)));
  }
  const zero = scores.device.tensor([0], []), one = scores.device.tensor([1], []);
  const tail = log(add(one, exp(neg(maximum(scores, neg(scores)))))); // log(1 + exp(−|s|))
  return scope.keep(mean(add(sub(maximum(scores, zero), mul(scores, labels)), tail)));
}

/**
 * Computes the loss of the next tokens in nats, GPT-1's auxiliary loss: the sum over sequences and their targets of
 * (log Σ exp(logits) − logits[target]) / divisor. If a sequence's divisor is R times the number of its targets, the
 * result is the mean over sequences of each sequence's mean loss.
 *
 * @param logits f32 (R, T, V)
 * @param options.targets i32 (R, T), each an id
 * @param options.counted f32 (R, T), 1 if the position has a target, otherwise 0
 * @param options.divisors f32 (R)
 * @returns the loss, ()
 */
export function nextTokensLoss(
  logits: Tensor,
  { targets, counted, divisors }: Readonly<Record<"targets" | "counted" | "divisors", Tensor>>,
): Tensor {
  using scope = logits.device.scope();
  const [R, T] = targets.shape;
  const likely = reshape(gather(logSoftmax(logits), targets.alias([R, T, 1]), { axis: 2 }), [R, T]);
  return scope.keep(neg(sum(div(sum(mul(likely, counted), { axis: 1 }), divisors))));
}
