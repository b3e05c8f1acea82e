/**
 * Supervised fine-tuning, as in TRL's SFTTrainer. The model sees all tokens of a row and learns to predict the tokens
 * marked as learned, usually the answer's tokens.
 *
 * The loss of an update is the mean of −log p over the learned tokens of all its micro-batches. So the mean of a
 * micro-batch is weighted by its share of the learned tokens. The first token of a row is never learned, because
 * nothing precedes it. (TRL counts the first token in the divisor, unless rows are packed.)
 *
 * Rows are padded on the right to one of a few fixed lengths, so that captured steps can be replayed. Padding is never
 * a target, and no other token attends to it. With packing, several rows are put into one bin, which is one row of a
 * batch. A token attends only to tokens of its own row, and the positions of each row begin at 0.
 *
 * @see https://huggingface.co/docs/trl/sft_trainer
 */
import { labelCount, paddedLength, paddedLengths, type TokenRows } from "../data/token_rows.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import type { GPT } from "../gpt.ts";
import { concat, div, reshape, sum } from "../ops/mod.ts";
import { logprobStatistics } from "../ops/logprobs.ts";
import type { LossAndOutputs, MicroBatch, Task } from "../train/task.ts";
import { packBestFit } from "./packing.ts";
import { checkRows, type RowOptions, RowTask, type Splits } from "./row_task.ts";

/** Options of {@linkcode SupervisedTuning}. */
export interface SupervisedOptions extends RowOptions {
  /** Rows in a micro-batch, or bins with packing. */ readonly batchSize: number;
  /** Maximum tokens in a row, or in a bin with packing; at most the model's block size. */ readonly maxLength: number;
  /** Whether several short rows are packed into one bin. Default: false. */ readonly packing?: boolean;
}

/** Rows to train on and rows to evaluate on, at least one each. */
export type TuningRows = Splits<TokenRows>;

/** The target at positions whose next token is not learned. */
const NOTHING = -1;

/**
 * A task that trains a model to predict the learned tokens of rows.
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT, Trainer } from "@nanogpt/ts";
 * import { TokenRows } from "@nanogpt/ts/data";
 * import { SupervisedTuning } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 }), rows = new TokenRows();
 * const model = new GPT({ vocabSize: 4, blockSize: 16, nLayer: 1, nHead: 1, nEmbd: 8 }, { device });
 * for (let id = 0; id < 3; id++) { // the prompt is a number, and the answer the next number
 *   rows.push({ ids: Int32Array.of(id, id + 1), learned: Uint8Array.of(0, 1) });
 * }
 * const task = new SupervisedTuning(model, { train: rows, val: rows }, { batchSize: 3, maxLength: 16 }), losses: number[] = [];
 * const options = { gradientAccumulationSteps: 1, maxIters: 40, evalInterval: 40, evalIters: 1, learningRate: 0.05, decayLr: false };
 * using trainer = new Trainer(model, task, { ...options, finalEvaluation: true });
 * for await (const event of trainer.run()) if (event.kind === "evaluation") losses.push(event.valLoss);
 * assertEquals(losses.map((loss) => loss < 0.1), [false, true]);
 * device.close();
 * ```
 */
export class SupervisedTuning extends RowTask {
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */
  readonly config: NonNullable<Task["config"]>;
  /** TRL's names of the measures: means over the learned tokens. */
  readonly measures: readonly string[] = ["entropy", "mean_token_accuracy"];
  /** The measures that a progress line shows. */ readonly shown: readonly string[] = ["mean_token_accuracy"];
  readonly #bins: Splits<readonly (readonly number[])[]>;
  readonly #lengths: readonly number[];
  readonly #packing: boolean;
  readonly #batch: number;
  readonly #vocabSize: number;

  /**
   * Creates the task.
   * @param model the model to tune
   * @param rows each has at most `maxLength` tokens, and at least one learned token that is not its first
   * @throws {DataError} when a split has no rows, or a row does not meet these conditions
   */
  constructor(model: GPT, readonly rows: TuningRows, { maxLength, packing = false, ...options }: SupervisedOptions) {
    checkRows("Supervised tuning", rows, maxLength);
    const bins = { train: binsOf(rows.train, maxLength, packing), val: binsOf(rows.val, maxLength, packing) };
    const batchSize = Math.min(options.batchSize, bins.train.length);
    super({ train: bins.train.length, val: bins.val.length }, { ...options, batchSize });
    this.config = { name: "supervised tuning", maxLength, packing };
    this.#bins = bins;
    this.#lengths = paddedLengths(maxLength);
    this.#packing = packing;
    this.#batch = batchSize;
    this.#vocabSize = model.config.vocabSize;
  }

  /** The number of bins in a split. Without packing, each row is a bin. */
  bins(split: "train" | "val"): number {
    return this.#bins[split].length;
  }
  /** The mean loss over the learned tokens of a micro-batch, in nats per token, and TRL's measures of them. */
  loss(
    model: GPT,
    { tokens, targets, starts, positions, learned }: Readonly<Record<string, Tensor>>,
  ): LossAndOutputs {
    using scope = model.device.scope();
    const { logits, loss } = model.forward(tokens, targets, { starts, positions });
    const outputs = noGrad(() => {
      const { entropy, hit } = logprobStatistics(logits, targets, { ignoreIndex: NOTHING }); // (B, T)
      return div(concat([entropy, hit].map((one) => reshape(sum(one), [1])), { axis: 0 }), learned); // (2)
    });
    return { loss: scope.keep(loss), outputs: scope.keep(outputs) };
  }
  /** A task for estimating memory: every update has one micro-batch of each possible shape. */
  rehearsal(): Task {
    const batches = this.#lengths.map((length) => ({ weight: 1, arrays: this.#empty(length) }));
    const draw = () => batches, nothing = () => ({}), { loss, ahead, measures } = this;
    const configureOptimizers: Task["configureOptimizers"] = (model, options) =>
      this.configureOptimizers(model, options);
    return { ahead, draw, evaluate: draw, loss, measures, state: nothing, restore: nothing, configureOptimizers };
  }

  /** Checksums of both splits: of the tokens, and of which tokens are learned. */
  identity(): Record<"train" | "val", TokensIdentity> {
    const { train, val } = this.rows;
    return { train: train.identity(), val: val.identity() };
  }
  /** An epoch goes through bins, not rows. @internal */
  protected override get countName(): string {
    return "bins";
  }
  /** @internal */
  protected override tokensOf(bin: number): number {
    return this.#bins.train[bin].reduce((sum, row) => sum + this.rows.train.lengthOf(row), 0);
  }
  /** Bins are weighted by their number of learned tokens. @internal */
  protected override weigh(split: "train" | "val", bins: readonly number[]): number {
    const rows = this.rows[split], all = bins.flatMap((bin) => this.#bins[split][bin]);
    return all.reduce((sum, row) => sum + labelCount(rows.row(row)), 0);
  }

  /** The arrays of a micro-batch that consists of padding. */
  #empty(T: number): MicroBatch["arrays"] {
    const shape = [this.#batch, T], ids = [0, this.#vocabSize - 1] as const, places = [0, T - 1] as const;
    const numbers = (value: number) => new Int32Array(this.#batch * T).fill(value);
    return {
      tokens: { values: numbers(0), shape, range: ids },
      targets: { values: numbers(NOTHING), shape, range: [NOTHING, ids[1]] },
      ...(this.#packing && {
        starts: { values: numbers(0), shape, range: places },
        positions: { values: numbers(0), shape, range: places },
      }),
      learned: { values: Float32Array.of(1), shape: [1] },
    };
  }

  /**
   * Every micro-batch has the same number of rows. A smaller one is filled up with rows of padding, because a captured
   * step can be replayed only for the same shape.
   */
  protected override arrays(split: "train" | "val", numbers: readonly number[]): MicroBatch["arrays"] {
    const rows = this.rows[split], bins = numbers.map((bin) => this.#bins[split][bin]);
    const longest = Math.max(...bins.map((bin) => bin.reduce((sum, row) => sum + rows.lengthOf(row), 0)));
    const T = paddedLength(longest, this.#lengths), arrays = this.#empty(T);
    const { tokens, targets, starts, positions, learned } = arrays;
    learned.values[0] = this.weigh(split, numbers);
    for (const [b, bin] of bins.entries()) {
      let begin = b * T;
      for (const row of bin) {
        const { ids, learned } = rows.row(row);
        tokens.values.set(ids, begin);
        for (let t = 1; t < ids.length; t++) if (learned[t]) targets.values[begin + t - 1] = ids[t];
        starts?.values.fill(begin - b * T, begin, begin + ids.length);
        for (let t = 0; positions && t < ids.length; t++) positions.values[begin + t] = t;
        begin += ids.length;
      }
      starts?.values.fill(begin - b * T, begin, (b + 1) * T); // padding is a document of its own, so it attends to no row
    }
    return arrays;
  }
}

function binsOf(rows: TokenRows, maxLength: number, packing: boolean): readonly (readonly number[])[] {
  const lengths = Array.from({ length: rows.length }, (_, i) => rows.lengthOf(i));
  return packing ? packBestFit(lengths, maxLength) : lengths.map((_, i) => [i]);
}
