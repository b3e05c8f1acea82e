/**
 * Base class of the tasks in which a policy learns from rewards of its own completions. Prompts are taken epoch by
 * epoch. If an iteration fails to start, for example because a reward fails, its prompts are taken again. An evaluation
 * completes each prompt once, with random streams that no update uses. The loss of an evaluation is minus the mean
 * reward, so the best checkpoint has the highest reward.
 */
import { Epochs } from "../data/epochs.ts";
import { paddedLengths } from "../data/token_rows.ts";
import { identify, type TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError, ConfigError, DataError, TrainingError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import type { Module } from "../nn/module.ts";
import {
  type DrawOptions,
  type LossAndOutputs,
  type Measures,
  type MicroBatch,
  type MicroBatches,
  namedMeasures,
  type Task,
  type TaskState,
} from "../train/task.ts";
import { spread } from "./advantages.ts";
import type { Lora } from "./lora.ts";
import {
  type PromptSplits,
  type RolloutPrompt,
  type RolloutSample,
  type RolloutScores,
  scoreRollouts,
  textOf,
} from "./prompts.ts";
import type { Reward } from "./rewards.ts";
import { isCount, Roller, type RollOptions, type Rollout, type RolloutOptions } from "./rollouts.ts";

/** How completions are written and scored. */
export interface RolloutTaskOptions
  extends Pick<RolloutOptions, "maxNewTokens" | "temperature" | "eosTokenId" | "slots"> {
  /** The rewards: at least one, with different names. */ readonly rewards: readonly Reward[];
  /** Turns a completion's tokens into text, for rewards. */ readonly decode: (ids: Int32Array) => string;
  /** Completions in a micro-batch. */ readonly batchSize: number;
  /**
   * The reference policy for KL: a frozen model; or the policy's adapter, which is disabled to compute the reference;
   * or a function that returns the adapter at first use.
   */
  readonly reference?: GPT | Lora | (() => Lora);
  /** Training stops if the mean KL per text, in nats, exceeds this. Default: 50 for PPO, no limit for GRPO and RLOO. */
  readonly maxKl?: number;
  /** Seed of the order of prompts, of completions, and of the order of minibatches. Default: 1337. */ readonly seed?:
    number;
  /** Whether prompts are shuffled, differently in each epoch. Default: true. */ readonly shuffle?: boolean;
}

/** The completions of an evaluation. */
export interface Answers {
  /** One for each prompt. */ readonly rollouts: readonly Rollout[];
  /** The reward of each completion. */ readonly scores: ArrayLike<number>;
  /** Means over the completions. */ readonly measured: Measures;
}

/** The name of the measure with the mean number of tokens in a completion. */
export const MEAN_LENGTH = "completions/mean_length";

/** A task on prompts. Subclasses define how the policy learns from its completions of them. */
export abstract class RolloutTask implements Task, Disposable {
  /** False: the next update's batches cannot be drawn ahead, because completions depend on the weights. */ readonly ahead =
    false;
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */
  abstract readonly config: NonNullable<Task["config"]>;
  /** TRL's names of the measures of an update. */ abstract readonly measures: readonly string[];
  /** The measures that a progress line shows. */ abstract readonly shown: readonly string[];
  /** Parameters besides the model's, such as a value function. */ readonly module?: Module;
  /** The completion of the first validation prompt in the latest evaluation. */ sample: RolloutSample | undefined;
  /** Writes completions. @internal */ protected readonly roller: Roller;
  /** The lengths that rows can be padded to. @internal */ protected readonly lengths: readonly number[];
  readonly #options: RolloutTaskOptions & { readonly seed: number };
  readonly #iteration: { readonly prompts: number; readonly microBatches: number };
  readonly #epochs: Epochs;

  /**
   * Creates the task.
   *
   * @param prompts each must leave room for `maxNewTokens` tokens in the block size
   * @param options.counts options that must be whole numbers above 0, by their names
   * @param options.iteration how many prompts an iteration takes, and how many micro-batches all its updates have
   * @throws {DataError} when a split has no prompts, or a prompt is empty or leaves no room for a completion
   * @throws {ConfigError} when an option is out of its range, or there is no reward
   * @throws {DeviceError} when the keys and values of not even one completion fit into memory
   */
  protected constructor(
    readonly model: GPT,
    readonly prompts: PromptSplits,
    { counts, iteration, ...options }: RolloutTaskOptions & {
      readonly counts: Readonly<Record<string, number>>;
      readonly iteration: { readonly prompts: number; readonly microBatches: number };
    },
  ) {
    const { maxNewTokens, batchSize, rewards, seed = 1337, shuffle } = options, { blockSize } = model.config;
    for (const [name, value] of Object.entries({ ...counts, batchSize, maxNewTokens })) {
      if (isCount(value) && value > 0) continue;
      throw new ConfigError(`${name} is ${value}; expected a whole number above 0`);
    }
    if (rewards.length === 0) throw new ConfigError("There is no reward to learn from; expected one or more");
    const twice = rewards.find(({ name }, i) => rewards.findIndex((other) => other.name === name) < i);
    if (twice) throw new ConfigError(`Two rewards are called ${twice.name}; expected names that differ`);
    for (const name of ["train", "val"] as const) {
      if (prompts[name].length === 0) throw new DataError(`Rollouts: ${name} has no prompts`);
      for (const [i, { ids: { length } }] of prompts[name].entries()) {
        if (length > 0 && length + maxNewTokens <= blockSize) continue;
        throw new DataError(
          `Rollouts: prompt ${i} of ${name} has ${length} tokens; expected one or more, with room for ${maxNewTokens} in the block size of ${blockSize}`,
        );
      }
    }
    this.#options = { ...options, seed };
    this.#iteration = iteration;
    this.#epochs = new Epochs(prompts.train.length, { seed, shuffle });
    this.lengths = paddedLengths(this.longest.ids.length + maxNewTokens);
    this.roller = new Roller(model, options);
  }

  /** The longest prompt. @internal */
  protected get longest(): RolloutPrompt {
    return [...this.prompts.train, ...this.prompts.val].reduce((a, b) => b.ids.length > a.ids.length ? b : a);
  }

  /** The number of micro-batches in an epoch, or in an evaluation of all prompts of a split. */
  microBatches(split: "train" | "val"): number {
    if (split === "val") return Math.ceil(this.prompts.val.length / this.#options.batchSize);
    return Math.ceil(this.prompts.train.length / this.#iteration.prompts) * this.#iteration.microBatches;
  }
  /** See {@linkcode Task.draw}. */ abstract draw(options: DrawOptions): AsyncGenerator<MicroBatch>;
  /** See {@linkcode Task.loss}. */
  abstract loss(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs;
  /** Measures of the completions that an update learns from, under TRL's names. */
  abstract drawn(): Measures;

  /** Calls `make` with the prompts of the next iteration. If it fails, the same prompts are taken again. @internal */
  protected async begin<T>(make: (prompts: RolloutPrompt[]) => Promise<T>): Promise<T> {
    const before = this.#epochs.state(), { prompts: length } = this.#iteration;
    try {
      return await make(Array.from({ length }, () => this.prompts.train[this.#epochs.next()]));
    } catch (error) {
      this.#epochs.restore(before, "the state before the iteration");
      throw error;
    }
  }

  /** Checks the mean KL per completion, in nats. @throws {TrainingError} when it exceeds `maxKl` @internal */
  protected checkKl(kl: number): void {
    const { maxKl = Infinity } = this.#options;
    if (kl <= maxKl) return;
    throw new TrainingError(
      `The policy is too far from its reference: KL is ${
        kl.toPrecision(3)
      } nats per text, expected at most ${maxKl}; ` +
        "a larger weight of KL, a lower learning rate or fewer updates per iteration may help",
    );
  }

  /** Writes one completion of each prompt, and scores them. @internal */
  protected async write(
    prompts: readonly RolloutPrompt[],
    how: RollOptions,
  ): Promise<{ readonly rollouts: readonly Rollout[]; readonly scores: RolloutScores }> {
    const rollouts = await this.roller.roll(prompts.map(({ ids }) => ids), how);
    return { rollouts, scores: await scoreRollouts(rollouts, { ...this.#options, ...how, prompts }) };
  }

  /** Names of the measures that {@linkcode answer} returns for an evaluation. @internal */
  protected abstract readonly judged: readonly string[];
  /** Writes one completion of each prompt, and scores and measures them. @internal */
  protected abstract answer(prompts: readonly RolloutPrompt[], how: RollOptions): Promise<Answers>;

  /**
   * Evaluates the first `count` micro-batches of prompts: writes one completion of each prompt and averages the
   * rewards.
   */
  async *evaluate(split: "train" | "val", { count, signal }: DrawOptions): AsyncGenerator<MicroBatch> {
    const { batchSize, seed } = this.#options, first = split === "val" ? this.prompts.train.length : 0;
    const all = this.prompts[split].slice(0, count * batchSize);
    for (let at = 0; at < all.length; at += batchSize) {
      const prompts = all.slice(at, at + batchSize), how = { seed: ~seed, first: first + at, signal };
      const { rollouts, scores, measured } = await this.answer(prompts, how);
      if (split === "val" && at === 0) {
        this.sample = { prompt: prompts[0], completion: textOf(rollouts[0], this.#options), reward: scores[0] };
      }
      const values = Float32Array.from(this.judged, (name) => measured[name]);
      const loss = { values: Float32Array.of(-spread(scores).mean), shape: [] };
      yield { weight: prompts.length, arrays: { loss, measured: { values, shape: [values.length] } } };
    }
  }
  /** Returns the loss and measures that {@linkcode evaluate} computed. */
  judge(_: GPT, { loss, measured }: Readonly<Record<string, Tensor>>): LossAndOutputs {
    return { loss, outputs: measured };
  }
  /** Returns an evaluation's measures under their names. */
  measure(outputs: NumberArray): Measures {
    return namedMeasures(this.judged, outputs);
  }

  /** Checksums of the prompts' tokens in both splits. */
  identity(): Record<keyof PromptSplits, TokensIdentity> {
    const of = (prompts: readonly RolloutPrompt[]) => {
      const all = Int32Array.from(prompts.flatMap(({ ids }) => [...ids]));
      return identify({ length: all.length, subarray: (begin: number, end: number) => all.subarray(begin, end) });
    };
    return { train: of(this.prompts.train), val: of(this.prompts.val) };
  }

  /** The position in the prompts. */
  state(): TaskState {
    return { ...this.#epochs.state(), prompts: this.prompts.train.length };
  }
  /** Continues at the saved position, or at the beginning of the saved epoch if the number of prompts has changed. */
  restore({ epoch, place, prompts }: Readonly<Record<string, unknown>>, path: string): void {
    if (!isCount(prompts)) throw new CheckpointError(`${path} is damaged: prompts is ${prompts}, expected a number`);
    this.#epochs.restore({ epoch, place: prompts === this.prompts.train.length ? place : 0 }, path);
  }

  /**
   * A task for estimating memory on `model`, whose device only counts: it writes completions and has micro-batches of
   * every possible shape.
   */
  abstract rehearsal(model: GPT): Task;
  /** As many completions as a micro-batch has, for each length of a row, for estimating memory. @internal */
  protected get empty(): readonly Rollout[][] {
    const { batchSize, maxNewTokens } = this.#options;
    return this.lengths.map((length) => {
      const from = Math.max(1, length - maxNewTokens), ids = new Int32Array(length);
      return Array<Rollout>(batchSize).fill({ ids, from, ended: true, promptIndex: 0 });
    });
  }
  /** A task for estimating memory that draws the same micro-batches for every update and evaluation. @internal */
  protected rehearsed(draw: () => MicroBatches, evaluate: () => MicroBatches = draw): Task {
    const { ahead, module, measures } = this, loss: Task["loss"] = (model, batch) => this.loss(model, batch);
    return { ahead, module, measures, draw, evaluate, loss, state: () => ({}), restore() {} };
  }

  /** Frees the buffers for writing completions. The model, the rewards and the reference are not freed. */
  [Symbol.dispose](): void {
    this.roller[Symbol.dispose]();
  }
}
