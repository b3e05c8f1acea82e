/**
 * Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290), as in TRL's DPOTrainer. A policy π learns
 * from pairs of answers, one preferred to the other, without a reward model. With Δ = r(chosen) − r(rejected), where
 * r = log π(answer) − log π_ref(answer), both sums over the answer's tokens, the loss of a pair is
 *
 *     sigmoid   −log σ(β Δ)
 *     hinge     max(0, 1 − β Δ)                                      (SLiC: Zhao et al. 2023, arXiv:2305.10425)
 *     ipo       (Δ − 1 / (2β))², with means instead of sums in r     (Azar et al. 2023, arXiv:2310.12036)
 *     robust    (−(1 − ε) log σ(β Δ) + ε log σ(−β Δ)) / (1 − 2ε)     (Chowdhury et al. 2024, arXiv:2403.00409)
 *
 * With label smoothing ε, `sigmoid` is the conservative loss −(1 − ε) log σ(β Δ) − ε log σ(−β Δ) (Mitchell 2023,
 * ericmitchell.ai/cdpo.pdf). Without a reference, r = log π. Dropout is off.
 *
 * Both answers of a pair are in the same batch. The reference runs in every step, or its log-probabilities are computed
 * once and stored.
 *
 * @see https://huggingface.co/docs/trl/dpo_trainer
 */
import { labelCount, paddedLengths, TokenRows } from "../data/token_rows.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { add, concat, div, maximum, mul, neg, pow, reshape, slice, sub, sum } from "../ops/mod.ts";
import type { LogprobStatistics } from "../ops/logprobs.ts";
import type { LossAndOutputs, MicroBatch, Task } from "../train/task.ts";
import { adaptersOf, Lora } from "./lora.ts";
import { answerSums, greater, logSigmoids, pairArrays, type PairSizes, type PreferenceRows } from "./pairs.ts";
import { ReferencePolicy, tokenLogprobs } from "./policy.ts";
import { checkRows, type RowOptions, RowTask, type Splits } from "./row_task.ts";

/** The losses of {@linkcode DirectPreference}. */
export type PreferenceLoss = "sigmoid" | "hinge" | "ipo" | "robust";
const LOSSES: readonly PreferenceLoss[] = ["sigmoid", "hinge", "ipo", "robust"];

/** Options of {@linkcode DirectPreference}. Defaults are TRL's. */
export interface PreferenceOptions extends RowOptions, PairSizes {
  /** The loss. Default: sigmoid. */ readonly loss?: PreferenceLoss;
  /** β: the factor of the log-ratios; a larger β keeps the policy closer to the reference. Default: 0.1. */
  readonly beta?: number;
  /** ε: the assumed share of pairs labelled the wrong way round, for `sigmoid` and `robust`; below 0.5. Default: 0. */
  readonly labelSmoothing?: number;
  /**
   * The reference policy, or the log-probabilities that {@linkcode referenceSums} computed with it. Default: no
   * reference, so nothing holds the policy near its start.
   */
  readonly reference?: ReferencePolicy | Splits<Float32Array>;
}

type Complete = PreferenceOptions & Required<Pick<PreferenceOptions, "loss" | "beta" | "labelSmoothing">>;

const MEASURES = [
  ...["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"],
  ...["logits/chosen", "logits/rejected", "entropy", "mean_token_accuracy"],
];

/**
 * A task that trains a policy on pairs of answers.
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { createDevice, GPT, Trainer } from "@nanogpt/ts";
 * import { TokenRows } from "@nanogpt/ts/data";
 * import { DirectPreference, ReferencePolicy } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 }), rows = new TokenRows();
 * const config = { vocabSize: 4, blockSize: 16, nLayer: 1, nHead: 1, nEmbd: 8 };
 * const [model, first] = [1, 2].map(() => new GPT(config, { device, seed: 1337 })), reference = new ReferencePolicy(model, first);
 * for (const answer of [1, 2]) rows.push({ ids: Int32Array.of(0, answer), learned: Uint8Array.of(0, 1) }); // the answer 1 is preferred to 2
 * const task = new DirectPreference(model, { train: rows, val: rows }, { batchSize: 1, maxLength: 16, reference });
 * const options = { gradientAccumulationSteps: 1, maxIters: 30, evalInterval: 30, evalIters: 1, learningRate: 0.05, decayLr: false };
 * using trainer = new Trainer(model, task, { ...options, warmupIters: 0, finalEvaluation: true });
 * let margin = 0;
 * for await (const event of trainer.run()) {
 *   if (event.kind === "evaluation") margin = event.measures["val_rewards/margins"];
 * }
 * assert(margin > 1); // β · Δ
 * device.close();
 * ```
 */
export class DirectPreference extends RowTask {
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */
  readonly config: NonNullable<Task["config"]>;
  /** TRL's names of the measures, which are means over pairs or over the answers' tokens. */
  readonly measures: readonly string[] = MEASURES;
  /** The measures that a progress line shows. */ readonly shown: readonly string[] = [
    "rewards/accuracies",
    "rewards/margins",
  ];
  readonly #options: Complete;
  readonly #vocabSize: number;

  /**
   * Creates the task.
   * @param model the model to tune
   * @param rows two for each pair; each has at most `maxLength` tokens, and its answer at least one learned token
   * @throws {DataError} when a split has no pairs, or a row does not meet these conditions
   * @throws {ConfigError} when an option is out of its range
   */
  constructor(model: GPT, readonly rows: PreferenceRows, options: PreferenceOptions) {
    for (const [name, { length }] of Object.entries(rows)) {
      if (length > 0 && length % 2 === 0) continue;
      throw new DataError(`Preferences: ${name} has ${length} rows; expected two for each pair, one pair or more`);
    }
    checkRows("Preferences", rows, options.maxLength);
    const batchSize = Math.min(options.batchSize, rows.train.length / 2);
    super({ train: rows.train.length / 2, val: rows.val.length / 2 }, { ...options, batchSize });
    const { loss = "sigmoid", beta = 0.1, labelSmoothing = 0, maxLength, reference } = options;
    this.#options = { ...options, loss, beta, labelSmoothing, batchSize };
    checkOptions(this.#options);
    const against = reference === undefined ? "none" : reference instanceof ReferencePolicy ? "policy" : "stored";
    this.config = { name: "direct preference", maxLength, loss, beta, labelSmoothing, reference: against };
    this.#vocabSize = model.config.vocabSize;
  }

  /** The mean loss over the pairs of a micro-batch, and TRL's measures of them. */
  loss(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs {
    using scope = model.device.scope();
    const found = tokenLogprobs(model, { tokens: batch.tokens, targets: batch.targets });
    const sums = sum(found.logprobs, { axis: 1 }); // (2B)
    const reference = this.#reference(batch), ratios = reference ? sub(sums, reference) : sums;
    const counted = noGrad(() => sum(batch.pairs)); // ()
    const loss = div(sum(mul(this.#losses(ratios, batch), batch.pairs)), counted);
    const outputs = noGrad(() => this.#measure(found, { ...batch, sums, ratios }));
    scope.keep(outputs);
    return { loss: scope.keep(loss), outputs };
  }

  /** The reference's log-probabilities of the answers, (2B): stored sums, or computed here. */
  #reference({ tokens, targets, reference: stored }: Readonly<Record<string, Tensor>>): Tensor | undefined {
    const { reference } = this.#options;
    if (!(reference instanceof ReferencePolicy)) return stored;
    return reference.run((model) => answerSums(model, { tokens, targets }));
  }

  /** The loss of each pair, (B). */
  #losses(ratios: Tensor, { lengths }: Readonly<Record<string, Tensor>>): Tensor {
    const { loss, beta, labelSmoothing: e } = this.#options, { device, shape: [rows] } = ratios, B = rows / 2;
    const number = (value: number) => device.tensor([value], []);
    const half = (x: Tensor, start: number) => slice(x, { axis: 0, start, end: start + B });
    const delta = (x: Tensor) => sub(half(x, 0), half(x, B));
    if (loss === "ipo") return pow(sub(delta(div(ratios, lengths)), number(1 / (2 * beta))), 2);
    const scaled = mul(delta(ratios), number(beta)); // β Δ
    if (loss === "hinge") return maximum(sub(number(1), scaled), number(0));
    const shares = loss === "robust" ? [(1 - e) / (1 - 2 * e), -e / (1 - 2 * e)] : [1 - e, e];
    return neg(sum(mul(logSigmoids(scaled), device.tensor(shares, [1, 2])), { axis: 1 }));
  }

  /** Computes the numbers of `measures`, in their order, from eleven means over pairs or tokens. */
  #measure(
    { mean, entropy, hit }: LogprobStatistics,
    { sums, ratios, counts }: Readonly<Record<string, Tensor>>,
  ): Tensor {
    const { device, shape: [rows] } = sums, B = rows / 2, beta = device.tensor([this.#options.beta], []);
    const perRow = (x: Tensor) => reshape(sum(x, { axis: 1 }), [2, B]); // chosen, rejected
    const pairs = [ratios, sums].map((x) => reshape(x, [2, B])), tokens = [mean, entropy, hit].map(perRow);
    const [good, bad] = [0, 1].map((at) => slice(pairs[0], { axis: 0, start: at, end: at + 1 }));
    const totals = sum(concat([...pairs, ...tokens, greater(good, bad)], { axis: 0 }), { axis: 1 }); // (11)
    const means = div(totals, counts), of = (start: number, end = start + 1) => slice(means, { axis: 0, start, end });
    const [chosen, rejected] = [mul(of(0), beta), mul(of(1), beta)], margins = sub(chosen, rejected);
    return concat([chosen, rejected, margins, of(10), of(2, 6), add(of(6), of(7)), of(8)], { axis: 0 });
  }

  /** @internal */
  protected override tokensOf(pair: number): number {
    return this.rows.train.lengthOf(2 * pair) + this.rows.train.lengthOf(2 * pair + 1);
  }
  /**
   * Every micro-batch has `batchSize` pairs. A smaller one is filled up with pairs of padding, because a captured step
   * can be replayed only for the same shape.
   */
  protected override arrays(split: "train" | "val", numbers: readonly number[]): MicroBatch["arrays"] {
    const { reference, batchSize: B, maxLength, loss } = this.#options, rows = this.rows[split];
    const { tokens, targets } = pairArrays(rows, numbers, { maxLength, batchSize: B, vocabSize: this.#vocabSize });
    const tokensOf = (which: 0 | 1) => numbers.map((pair) => labelCount(rows.row(2 * pair + which)));
    const [good, bad] = [tokensOf(0), tokensOf(1)], n = numbers.length;
    const [chosen, rejected] = [good, bad].map((all) => all.reduce((a, b) => a + b, 0)), all = chosen + rejected;
    const of = (values: (which: 0 | 1, pair: number, i: number) => number, otherwise: number) => {
      const found = new Float32Array(2 * B).fill(otherwise);
      for (const which of [0, 1] as const) {
        for (const [i, pair] of numbers.entries()) found[which * B + i] = values(which, pair, i);
      }
      return { values: found, shape: [2 * B] };
    };
    return {
      tokens,
      targets,
      pairs: { values: new Float32Array(B).fill(1, 0, n), shape: [B] },
      counts: { values: Float32Array.of(n, n, n, n, chosen, rejected, all, all, chosen, rejected, n), shape: [11] },
      ...(loss === "ipo" && { lengths: of((which, _, i) => [good, bad][which][i], 1) }),
      ...(reference && !(reference instanceof ReferencePolicy) &&
        { reference: of((which, pair) => reference[split][2 * pair + which], 0) }),
    };
  }

  /** Checksums of both splits: of the tokens, and of which tokens are learned. */
  identity(): Splits<TokensIdentity> & Readonly<Record<string, TokensIdentity>> {
    const { train, val } = this.rows;
    return { train: train.identity(), val: val.identity() };
  }

  /**
   * A task for estimating memory on a model like this task's: every update has one micro-batch of each possible shape.
   */
  rehearsal(model: GPT): Task {
    const { batchSize, maxLength, reference } = this.#options, rows = new TokenRows();
    for (const length of paddedLengths(maxLength).flatMap((length) => Array(2 * batchSize).fill(length))) {
      rows.push({ ids: new Int32Array(length), learned: new Uint8Array(length).fill(1, 1) });
    }
    const sums = new Float32Array(rows.length), [lora] = adaptersOf(model).slice(-1);
    const own = reference instanceof ReferencePolicy // a separate reference model is in memory already and not counted again
      ? new ReferencePolicy(model, reference.reference instanceof Lora ? lora : model)
      : reference && { train: sums, val: sums };
    return new DirectPreference(model, { train: rows, val: rows }, { ...this.#options, reference: own }).rehearse();
  }
}

/** @throws {ConfigError} when an option is out of its range */
function checkOptions({ loss, beta, labelSmoothing }: Complete): void {
  if (!LOSSES.includes(loss)) {
    throw new ConfigError(`loss is ${loss}; expected one of ${LOSSES.join(", ")}`);
  }
  if (!(beta > 0 && beta < Infinity)) throw new ConfigError(`beta is ${beta}; expected a number above 0`);
  if (!(labelSmoothing >= 0 && labelSmoothing < 0.5)) {
    throw new ConfigError(`labelSmoothing is ${labelSmoothing}; expected a number from 0 to below 0.5`);
  }
  if (labelSmoothing > 0 && (loss === "hinge" || loss === "ipo")) {
    throw new ConfigError(
      `labelSmoothing is ${labelSmoothing}, but the loss ${loss} has no label smoothing; use sigmoid or robust`,
    );
  }
}
