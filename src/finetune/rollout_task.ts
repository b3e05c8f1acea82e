/**
 * What the tasks have in common whose policies learn from the rewards of what they write. Prompts are taken epoch by
 * epoch; where an iteration cannot be begun, as its reward fails, they are the next ones again. An evaluation has each
 * prompt answered once, from random streams that no update draws from, and its loss is minus the mean reward, so that
 * the best checkpoint has the highest.
 */
import { Epochs } from "../data/epochs.ts";
import { paddedLengths } from "../data/token_rows.ts";
import { identify, type TokensIdentity } from "../data/tokens.ts";
import type { Tensor } from "../engine/tensor.ts";
import { CheckpointError, ConfigError, DataError, TrainingError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import type { Module } from "../nn/module.ts";
import type {
  DrawOptions,
  LossAndOutputs,
  Measures,
  MicroBatch,
  MicroBatches,
  Task,
  TaskState,
} from "../train/task.ts";
import type { Lora } from "./lora.ts";
import { type PromptSplits, type RolloutPrompt, type RolloutSample, textOf } from "./prompts.ts";
import type { Reward } from "./rewards.ts";
import { isCount, Roller, type RollOptions, type Rollout, type RolloutOptions } from "./rollouts.ts";

/** How policies write, and what their answers are judged by. */
export interface RolloutTaskOptions
  extends Pick<RolloutOptions, "maxNewTokens" | "temperature" | "eosTokenId" | "slots"> {
  /** One or more, with names that differ. */ readonly rewards: readonly Reward[];
  /** The text of a completion's tokens, for rewards. */ readonly decode: (ids: Int32Array) => string;
  /** Completions in a micro-batch. */ readonly batchSize: number;
  /**
   * What KL is measured to: a frozen model, or the policy's adapter, which is switched off then; a function is called
   * at first use.
   */
  readonly reference?: GPT | Lora | (() => Lora);
  /** The mean KL of a text, in nats, at which training stops. Default: of PPO 50, else it is not looked at. */
  readonly maxKl?: number;
  /** Of the order of prompts, of completions and of minibatches. Default 1337. */ readonly seed?: number;
  /** Whether each epoch has an order of its own. Default true. */ readonly shuffle?: boolean;
}

/** What prompts of an evaluation were answered. */
export interface Answers {
  /** One of each prompt. */ readonly rollouts: readonly Rollout[];
  /** Their rewards. */ readonly scores: ArrayLike<number>;
  /** Means over them. */ readonly measured: Measures;
}

/** A task on prompts. What is learned of the answers, its subclasses know. */
export abstract class RolloutTask implements Task, Disposable {
  /** Completions depend on the weights. */ readonly ahead = false;
  /** The task's name and settings; a checkpoint can be resumed only if they are equal. */ abstract readonly config:
    NonNullable<Task["config"]>;
  /** Of an update, by TRL's names. */ abstract readonly measures: readonly string[];
  /** In lines of progress. */ abstract readonly shown: readonly string[];
  /** What is trained besides the model. */ readonly module?: Module;
  /** Of the last evaluation: the first held-out prompt's completion. */ sample: RolloutSample | undefined;
  /** Writes completions. @internal */ protected readonly roller: Roller;
  /** What rows are padded to. @internal */ protected readonly lengths: readonly number[];
  readonly #options: RolloutTaskOptions & { readonly seed: number };
  readonly #iteration: { readonly prompts: number; readonly microBatches: number };
  readonly #epochs: Epochs;

  /**
   * A task before its first update.
   *
   * @param prompts with room for `maxNewTokens` more in the block size
   * @param options.counts numbers that have to be whole and above 0, by the names of their options
   * @param options.iteration how many prompts an iteration takes, and how many micro-batches its updates have
   * @throws {DataError} when there are no prompts in a part, or one is empty or leaves no room for an answer
   * @throws {ConfigError} when options are out of their range, or there is no reward
   * @throws {DeviceError} when there is no room for the keys and values of a text
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

  /** Micro-batches in an epoch, or in an evaluation of all prompts of a part. */
  microBatches(split: "train" | "val"): number {
    if (split === "val") return Math.ceil(this.prompts.val.length / this.#options.batchSize);
    return Math.ceil(this.prompts.train.length / this.#iteration.prompts) * this.#iteration.microBatches;
  }
  /** See {@linkcode Task.draw}. */ abstract draw(options: DrawOptions): AsyncGenerator<MicroBatch>;
  /** See {@linkcode Task.loss}. */
  abstract loss(model: GPT, batch: Readonly<Record<string, Tensor>>): LossAndOutputs;
  /** What the host knows of the completions that an update learns from, by TRL's names. */
  abstract drawn(): Measures;

  /** Makes an iteration of the next prompts; where that fails, they are the next ones again. @internal */
  protected async begin<T>(make: (prompts: RolloutPrompt[]) => Promise<T>): Promise<T> {
    const before = this.#epochs.state(), { prompts: length } = this.#iteration;
    try {
      return await make(Array.from({ length }, () => this.prompts.train[this.#epochs.next()]));
    } catch (error) {
      this.#epochs.restore(before, "the state before the iteration");
      throw error;
    }
  }

  /** Stops where KL, in nats a text, has run away. @throws {TrainingError} @internal */
  protected checkKl(kl: number): void {
    const { maxKl = Infinity } = this.#options;
    if (kl <= maxKl) return;
    throw new TrainingError(
      `The policy has left its reference: KL is ${kl.toPrecision(3)} nats a text, and the most is ${maxKl}; ` +
        "a greater weight of KL, a lower learning rate or fewer updates of an iteration may help",
    );
  }

  /** Names of what {@linkcode answer} measures for an evaluation. @internal */
  protected abstract readonly judged: readonly string[];
  /** Answers to prompts, judged. @internal */
  protected abstract answer(prompts: readonly RolloutPrompt[], how: RollOptions): Promise<Answers>;

  /** The first `count` micro-batches of prompts, each answered once. */
  async *evaluate(split: "train" | "val", { count, signal }: DrawOptions): AsyncGenerator<MicroBatch> {
    const { batchSize, seed } = this.#options, first = split === "val" ? this.prompts.train.length : 0;
    const all = this.prompts[split].slice(0, count * batchSize);
    for (let at = 0; at < all.length; at += batchSize) {
      const prompts = all.slice(at, at + batchSize), how = { seed: ~seed, first: first + at, signal };
      const { rollouts, scores, measured } = await this.answer(prompts, how);
      if (split === "val" && at === 0) {
        this.sample = { prompt: prompts[0], completion: textOf(rollouts[0], this.#options), reward: scores[0] };
      }
      const mean = Array.from(scores).reduce((a, b) => a + b) / prompts.length;
      const values = Float32Array.from(this.judged, (name) => measured[name]);
      const loss = { values: Float32Array.of(-mean), shape: [] };
      yield { weight: prompts.length, arrays: { loss, measured: { values, shape: [values.length] } } };
    }
  }
  /** What {@linkcode evaluate} has found out. */
  judge(_: GPT, { loss, measured }: Readonly<Record<string, Tensor>>): LossAndOutputs {
    return { loss, outputs: measured };
  }
  /** The same by names. */
  measure(outputs: NumberArray): Measures {
    return Object.fromEntries(this.judged.map((name, i) => [name, outputs[i]]));
  }

  /** Of the prompts' tokens of both parts. */
  identity(): Record<keyof PromptSplits, TokensIdentity> {
    const of = (prompts: readonly RolloutPrompt[]) => {
      const all = Int32Array.from(prompts.flatMap(({ ids }) => [...ids]));
      return identify({ length: all.length, subarray: (begin: number, end: number) => all.subarray(begin, end) });
    };
    return { train: of(this.prompts.train), val: of(this.prompts.val) };
  }

  /** The place among the prompts. */
  state(): TaskState {
    return { ...this.#epochs.state(), prompts: this.prompts.train.length };
  }
  /** Goes on there; with another number of prompts, at the beginning of an epoch. */
  restore({ epoch, place, prompts }: Readonly<Record<string, unknown>>, path: string): void {
    if (!isCount(prompts)) throw new CheckpointError(`${path} is damaged: prompts is ${prompts}, expected a number`);
    this.#epochs.restore({ epoch, place: prompts === this.prompts.train.length ? place : 0 }, path);
  }

  /**
   * A task on another model, one that only counts, which writes and has micro-batches of every shape: for the memory
   * that they take.
   */
  abstract rehearsal(model: GPT): Task;
  /** A task that draws the same for every update and evaluation: for the memory that this takes. @internal */
  protected rehearsed(draw: () => MicroBatches, evaluate: () => MicroBatches = draw): Task {
    const { ahead, module, measures } = this, loss: Task["loss"] = (model, batch) => this.loss(model, batch);
    return { ahead, module, measures, draw, evaluate, loss, state: () => ({}), restore() {} };
  }

  /** Frees what completions are written with. The model, rewards and the reference stay. */
  [Symbol.dispose](): void {
    this.roller[Symbol.dispose]();
  }
}
