/**
 * Supervised tuning, as TRL's SFTTrainer: the model learns to write the learned tokens of each row, and sees all of them.
 *
 * The loss of an update is the sum of −log p over its learned tokens, divided by their number in all of its micro-batches: each
 * micro-batch's mean counts by its share of these tokens. The first token of a row is never among them, for nothing comes before
 * it (TRL counts it in the divisor, unless rows are packed).
 *
 * Rows are padded on the right to one of a few fixed lengths, so that captured steps are replayed; padding is never a target, and
 * no other token sees it. With packing several rows lie side by side in one row of a batch: each sees itself alone, and its
 * positions begin at 0.
 *
 * @see https://huggingface.co/docs/trl/sft_trainer
 */
import { labelCount, paddedLength, paddedLengths, type TokenRows } from "../data/token_rows.ts";
import type { TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import { DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { MicroBatch, Task } from "../train/task.ts";
import { packBestFit } from "./packing.ts";
import { type RowOptions, RowTask, type Splits } from "./row_task.ts";

/** How {@linkcode SupervisedTuning} makes batches. */
export interface SupervisedOptions extends RowOptions {
  /** Rows in a micro-batch; with packing, bins. */ readonly batchSize: number;
  /** The most tokens of a row, at most the model's block size; with packing, of a bin. */ readonly maxLength: number;
  /** Whether short rows are packed into one: default false. */ readonly packing?: boolean;
}

/** One row or more to train on, and to evaluate on. */
export type TuningRows = Splits<TokenRows>;

/** The target of a token after which nothing is learned. */
const NOTHING = -1;

/**
 * Trains a model to write the learned tokens of rows.
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT, Trainer } from "@nanogpt/ts";
 * import { TokenRows } from "@nanogpt/ts/data";
 * import { SupervisedTuning } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 }), rows = new TokenRows();
 * const model = new GPT({ vocabSize: 4, blockSize: 16, nLayer: 1, nHead: 1, nEmbd: 8 }, { device });
 * for (let id = 0; id < 3; id++) { // the answer to 0 is 1, to 1 is 2, to 2 is 3
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
  /** What a run that goes on has to agree in. */ readonly config: NonNullable<Task["config"]>;
  readonly #bins: Splits<readonly (readonly number[])[]>;
  readonly #lengths: readonly number[];
  readonly #packing: boolean;
  readonly #batch: number;
  readonly #vocabSize: number;

  /**
   * A task before its first update.
   * @param model that is to be tuned
   * @param rows with one learned token or more each, not the first, and at most `maxLength` tokens
   * @throws {DataError} when there are none to train on or to evaluate on, or one is not so
   */
  constructor(model: GPT, readonly rows: TuningRows, { maxLength, packing = false, ...options }: SupervisedOptions) {
    for (const [name, some] of Object.entries(rows)) checkRows(name, some, maxLength);
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

  /** Rows of batches that go through a part once: without packing, its rows. */
  bins(split: "train" | "val"): number {
    return this.#bins[split].length;
  }
  /** The mean over the learned tokens of a micro-batch, in nats. */
  loss(model: GPT, { tokens, targets, starts, positions }: Readonly<Record<string, Tensor>>): Tensor {
    return model.forward(tokens, targets, { starts, positions }).loss;
  }
  /** A micro-batch of each shape that there can be, again and again: for a rehearsal of what a run takes. */
  rehearsal(): Task {
    const batches = this.#lengths.map((length) => ({ weight: 1, arrays: this.#empty(length) }));
    const draw = () => batches, nothing = () => ({}), { loss, ahead } = this;
    const configureOptimizers: Task["configureOptimizers"] = (model, options) =>
      this.configureOptimizers(model, options);
    return { ahead, draw, evaluate: draw, loss, state: nothing, restore: nothing, configureOptimizers };
  }

  /** Of the tokens of both parts, and of which are learned. */
  identity(): Record<"train" | "val", TokensIdentity> {
    const { train, val } = this.rows;
    return { train: train.identity(), val: val.identity() };
  }
  /** Bins are what an epoch takes. @internal */
  protected override get countName(): string {
    return "bins";
  }
  /** Learned tokens. @internal */
  protected override weigh(split: "train" | "val", bins: readonly number[]): number {
    const rows = this.rows[split], all = bins.flatMap((bin) => this.#bins[split][bin]);
    return all.reduce((sum, row) => sum + labelCount(rows.row(row)), 0);
  }

  /** Of nothing but padding. */
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
    };
  }

  /** Always as many rows: a micro-batch with fewer ends with rows of padding, for another shape would be captured anew. */
  protected override arrays(split: "train" | "val", numbers: readonly number[]): MicroBatch["arrays"] {
    const rows = this.rows[split], bins = numbers.map((bin) => this.#bins[split][bin]);
    const longest = Math.max(...bins.map((bin) => bin.reduce((sum, row) => sum + rows.lengthOf(row), 0)));
    const T = paddedLength(longest, this.#lengths), arrays = this.#empty(T);
    const { tokens, targets, starts, positions } = arrays;
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
      starts?.values.fill(begin - b * T, begin, (b + 1) * T); // padding is a document of its own: nothing is computed for it twice
    }
    return arrays;
  }
}

/** @throws {DataError} */
function checkRows(name: string, rows: TokenRows, maxLength: number): void {
  if (rows.length === 0) throw new DataError(`Supervised tuning: ${name} has no rows`);
  for (let i = 0; i < rows.length; i++) {
    const labels = labelCount(rows.row(i)), length = rows.lengthOf(i);
    if (labels > 0 && length <= maxLength) continue;
    const what = labels > 0 ? `${length} tokens, expected at most ${maxLength}` : "no token that is learned";
    throw new DataError(`Supervised tuning: row ${i} of ${name} has ${what}`);
  }
}

function binsOf(rows: TokenRows, maxLength: number, packing: boolean): readonly (readonly number[])[] {
  const lengths = Array.from({ length: rows.length }, (_, i) => rows.lengthOf(i));
  return packing ? packBestFit(lengths, maxLength) : lengths.map((_, i) => [i]);
}
