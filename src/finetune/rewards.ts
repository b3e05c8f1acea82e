/**
 * What scores the texts that a policy writes: a model that was trained on preferences, or a function in TypeScript. Several of them
 * are added up with weights.
 */
import { paddedLengths } from "../data/token_rows.ts";
import { ConfigError, TrainingError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { evaluating } from "../nn/module.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type Head, type HeadDescription, scores } from "./head_description.ts";
import { headBatch, HeadRows } from "./head_rows.ts";
import { pooled } from "./heads.ts";
import { CapturedPasses } from "./policy.ts";
import { afterPrompt, RewardWorker, type Sample } from "./reward_worker.ts";

export type { Sample };

/** Scores texts. */
export interface Reward extends Disposable {
  /** As reports have it. */ readonly name: string;
  /** What its scores are multiplied by, before those of several rewards are added up. */ readonly weight: number;
  /**
   * A finite number for each sample, before the weight.
   * @throws {TrainingError} naming the prompt, when there is none
   */
  score(samples: readonly Sample[], options?: { readonly signal?: AbortSignal }): Promise<Float64Array>;
}

/** How a reward is called, and what it counts. */
export interface RewardOptions {
  /** Default: the file's name. */ readonly name?: string;
  /** Default 1. */ readonly weight?: number;
}

/**
 * A function of this process as a reward, for what is trusted: {@linkcode RewardFunction} runs what is not.
 *
 * @param score the reward of a sample; finite
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { plainReward } from "@nanogpt/ts/finetune";
 *
 * const short = plainReward("short", ({ completion }) => -completion.length, 0.1);
 * const sample = { prompt: "Why?", completion: "So.", ids: new Int32Array(2), from: 1, ended: true };
 * assertEquals([...await short.score([sample])], [-3]);
 * ```
 */
export function plainReward(name: string, score: (sample: Sample) => number | Promise<number>, weight = 1): Reward {
  return {
    name,
    weight,
    async score(samples, { signal } = {}) {
      const scores = new Float64Array(samples.length);
      for (const [i, sample] of samples.entries()) {
        signal?.throwIfAborted();
        scores[i] = await score(sample);
        if (Number.isFinite(scores[i])) continue;
        throw new TrainingError(
          `The reward ${name} gives ${scores[i]}, expected a finite number, ${afterPrompt(sample)}`,
        );
      }
      return scores;
    },
    [Symbol.dispose]() {},
  };
}

/**
 * A function out of a file as a reward. The file is a module whose default export takes the prompt, the completion and the whole
 * {@linkcode Sample}, and gives a number or a promise of one:
 *
 * ```ts ignore
 * import words from "./words.json" with { type: "json" };
 * export default (prompt: string, completion: string): number => words.filter((word) => completion.includes(word)).length;
 * ```
 *
 * It runs in a worker without permissions: it reads and writes nothing and has no network and no environment. What its import
 * statements name is loaded with it, before: modules and, with a type, data. A call that takes too long is given up, and the next one
 * gets another worker; an endless loop goes on in its thread until the process ends. The memory that a function takes is not bounded.
 *
 * Deno alone has such workers, with the option `--unstable-worker-options` or `"unstable": ["worker-options"]` in deno.json, without
 * which it ends the process.
 *
 * @example
 * ```ts ignore
 * using reward = await RewardFunction.open("reward.ts", { weight: 0.5 });
 * console.log(await reward.score([{ prompt: "2 + 2 =", completion: " 4", ids: new Int32Array(6), from: 5, ended: true }]));
 * ```
 */
export class RewardFunction implements Reward {
  readonly name: string;
  readonly weight: number;
  readonly #worker: RewardWorker;

  private constructor(worker: RewardWorker, name: string, weight: number) {
    this.name = name;
    this.weight = weight;
    this.#worker = worker;
  }

  /**
   * Loads the file.
   *
   * @param path of the module
   * @param options.seconds that one call may take; default 30, which loading may always take
   * @throws {ConfigError} when there is no such file, it cannot be loaded, or it exports no function
   */
  static async open(
    path: string,
    { name = fileName(path), weight = 1, seconds = 30 }: RewardOptions & { readonly seconds?: number } = {},
  ): Promise<RewardFunction> {
    const worker = new RewardWorker(path, seconds);
    await worker.open();
    return new RewardFunction(worker, name, checkedWeight(name, weight));
  }

  score(samples: readonly Sample[], options?: { readonly signal?: AbortSignal }): Promise<Float64Array> {
    return this.#worker.score(samples, options);
  }
  /** Ends the worker. */
  [Symbol.dispose](): void {
    this.#worker[Symbol.dispose]();
  }
}

/** A model that scores texts, with what belongs to it: as `loadHead` gives it. */
export interface ScoringModel {
  /** Below the head. */ readonly model: GPT;
  /** With one label. */ readonly head: Head;
  /** What the head is. */ readonly description: HeadDescription;
  /** What the model's ids mean. */ readonly tokenizer: Tokenizer;
}

/**
 * A reward model: the score of a text is its one label's, at the text's last token.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT } from "@nanogpt/ts";
 * import { newHead, rewardDescription, RewardModel } from "@nanogpt/ts/finetune";
 * import { CharacterTokenizer } from "@nanogpt/ts/tokenizer";
 *
 * const device = await createDevice("cpu", { threads: 1 }), tokenizer = CharacterTokenizer.fromText("abc");
 * const model = new GPT({ vocabSize: 3, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 8 }, { device }).eval();
 * const description = rewardDescription(), head = newHead(model, description);
 * using reward = new RewardModel({ model, head, description, tokenizer }, { policy: tokenizer, name: "help" });
 * const sample = { prompt: "a", completion: "bc", ids: Int32Array.of(0, 1, 2), from: 1, ended: false };
 * assertEquals((await reward.score([sample, sample])).length, 2);
 * device.close();
 * ```
 */
export class RewardModel implements Reward {
  readonly name: string;
  readonly weight: number;
  readonly #scoring: ScoringModel;
  readonly #passes: CapturedPasses;
  readonly #batchSize: number;

  /**
   * A reward of a model that is there. It is disposed with the reward.
   *
   * @param options.policy the tokenizer of the texts
   * @param options.batchSize texts of a pass; default 16
   * @throws {ConfigError} when the model is not one that gives a number, or has another tokenizer
   */
  constructor(
    scoring: ScoringModel,
    { policy, name = "model", weight = 1, batchSize = 16 }: RewardOptions & {
      readonly policy: Tokenizer;
      readonly batchSize?: number;
    },
  ) {
    const { model, head, description: { kind, labels, tokens }, tokenizer } = scoring;
    if (kind !== "classify" || labels.length !== 1 || tokens) {
      throw new ConfigError(
        `${name} is not a reward model: its head has ${labels.length} labels for ${kind}; expected one number`,
      );
    }
    checkTokenizer(`The reward model ${name}`, tokenizer, policy);
    this.name = name;
    this.weight = checkedWeight(name, weight);
    this.#scoring = scoring;
    this.#batchSize = batchSize;
    this.#passes = new CapturedPasses(model, ({ tokens, at }) => {
      return evaluating(head, () => scores(head, scoring.description, pooled(model.hidden(tokens), at)));
    });
  }

  async score(samples: readonly Sample[], { signal }: { readonly signal?: AbortSignal } = {}): Promise<Float64Array> {
    const { model: { config: { blockSize, vocabSize } }, description: { padTokenId } } = this.#scoring;
    const rows = new HeadRows(),
      found = new Float64Array(samples.length),
      B = Math.min(this.#batchSize, samples.length);
    for (const sample of samples) {
      if (sample.ids.length > blockSize) {
        throw new TrainingError(
          `The reward model ${this.name} sees ${blockSize} tokens at once, and a text ${afterPrompt(sample)} has ` +
            `${sample.ids.length}: shorter prompts or completions fit`,
        );
      }
      rows.add([sample.ids], { where: "a text", label: 0 });
    }
    const options = { lengths: paddedLengths(blockSize), choices: 1, vocabSize, padTokenId };
    for (let begin = 0; begin < samples.length; begin += B) {
      signal?.throwIfAborted();
      const numbers = Array.from({ length: B }, (_, i) => begin + i < samples.length ? begin + i : begin);
      const values = await this.#passes.run(headBatch(rows, numbers, options));
      found.set(values.subarray(0, samples.length - begin), begin);
    }
    const wrong = found.findIndex((score) => !Number.isFinite(score));
    if (wrong < 0) return found;
    throw new TrainingError(
      `The reward model ${this.name} gives ${found[wrong]}, expected a finite number, ${afterPrompt(samples[wrong])}`,
    );
  }
  /** Frees what passes take, the head and the model. */
  [Symbol.dispose](): void {
    this.#passes[Symbol.dispose]();
    this.#scoring.head.dispose();
    this.#scoring.model.dispose();
  }
}

/** @internal @throws {ConfigError} when a token of the policy's is another in the vocabulary of `what` */
export function checkTokenizer(what: string, own: Tokenizer, policy: Tokenizer): void {
  const refuse = (why: string) => new ConfigError(`${what} has another tokenizer than the policy: ${why}`);
  if (own.vocabSize < policy.vocabSize) {
    throw refuse(`it has ${own.vocabSize} tokens, expected ${policy.vocabSize} or more`);
  }
  for (let id = 0; id < policy.vocabSize; id++) {
    const [here, there] = [policy, own].map((tokenizer) => textOf(tokenizer, id));
    if (here !== there) throw refuse(`token ${id} is ${JSON.stringify(there)}, expected ${JSON.stringify(here)}`);
  }
}

/** None for an id that has no token. */
function textOf(tokenizer: Tokenizer, id: number): string | undefined {
  try {
    return tokenizer.decode([id]);
  } catch {
    return undefined;
  }
}

const fileName = (path: string): string => path.replace(/.*[/\\]/, "").replace(/\.\w+$/, "");

/** @throws {ConfigError} when it is not a finite number */
function checkedWeight(name: string, weight: number): number {
  if (Number.isFinite(weight)) return weight;
  throw new ConfigError(`The weight of the reward ${name} is ${weight}; expected a finite number`);
}
