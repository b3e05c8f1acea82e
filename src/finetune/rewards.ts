/**
 * Rewards score the completions of a policy. A reward is a model trained on preferences or a function in TypeScript.
 * The scores of several rewards are added up with weights.
 */
import { paddedLengths } from "../data/token_rows.ts";
import type { Words } from "../data/examples.ts";
import { ConfigError, TrainingError } from "../errors.ts";
import { shown } from "../files/shown.ts";
import type { GPT } from "../gpt.ts";
import { evaluating } from "../nn/module.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { type Head, type HeadDescription, scores } from "./head_description.ts";
import { headBatch, HeadRows } from "./head_rows.ts";
import { pooled } from "./heads.ts";
import { CapturedPasses } from "./policy.ts";

/** A completion to be scored. */
export interface Sample {
  /** The prompt. */ readonly prompt: Words;
  /** The policy's completion, without special tokens. */ readonly completion: string;
  /** The tokens of prompt and completion, including special tokens. */ readonly ids: Int32Array;
  /** The number of tokens in the prompt. */ readonly from: number;
  /** Whether the completion has its end token, and was not cut off. */ readonly ended: boolean;
  /** The further columns of the prompt's row. */ readonly more?: Readonly<Record<string, unknown>>;
}

/** @internal The end of an error message, which names the sample's prompt. */
export const afterPrompt = ({ prompt }: Sample): string => {
  const text = typeof prompt === "string" ? prompt : prompt.at(-1)?.content ?? "";
  return `after the prompt "${shown(text)}"`;
};

/** Scores completions. */
export interface Reward extends Disposable {
  /** The name of the reward in measures. */ readonly name: string;
  /** The factor of its scores in the sum of all rewards. */ readonly weight: number;
  /**
   * Scores each sample with a finite number, not yet multiplied by the weight.
   * @throws {TrainingError} when a sample cannot be scored; the message contains its prompt
   */
  score(samples: readonly Sample[], options?: { readonly signal?: AbortSignal }): Promise<Float64Array>;
}

/** The name and weight of a reward. */
export interface RewardOptions {
  /** The name. Default: the function's file name without its extension, or `model`. */ readonly name?: string;
  /** The factor of the scores in the sum of all rewards. Default: 1. */ readonly weight?: number;
}

/**
 * Makes a reward of a function in this process. Use it for trusted code; {@linkcode RewardFunction} isolates code from
 * a file.
 *
 * @param score returns the reward of a sample, a finite number
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

/** A model that scores texts, with its head and tokenizer, as `loadHead` returns them. */
export interface ScoringModel {
  /** The model below the head. */ readonly model: GPT;
  /** A head with one label. */ readonly head: Head;
  /** The head's kind, labels and padding. */ readonly description: HeadDescription;
  /** The model's tokenizer. */ readonly tokenizer: Tokenizer;
}

/**
 * A reward model as a reward. The score of a text is the score of the model's single label, computed from the hidden
 * state of the text's last token.
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
   * Creates a reward from a loaded model. Disposing of the reward disposes of the model and its head.
   *
   * @param options.policy the policy's tokenizer
   * @param options.batchSize texts in a pass; default: 16
   * @throws {ConfigError} when the model is not a reward model, or its tokenizer differs from the policy's
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
          `The reward model ${this.name} reads at most ${blockSize} tokens, but a text ${afterPrompt(sample)} has ` +
            `${sample.ids.length}; use shorter prompts or completions`,
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
  /** Frees captured passes, the head and the model. */
  [Symbol.dispose](): void {
    this.#passes[Symbol.dispose]();
    this.#scoring.head.dispose();
    this.#scoring.model.dispose();
  }
}

/**
 * @internal Checks that a reward model's tokenizer has the policy's tokens under the same ids.
 * @throws {ConfigError} when one of the policy's ids is a different token in the model's vocabulary
 */
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

/** The text of a token; undefined for an id without a token. */
function textOf(tokenizer: Tokenizer, id: number): string | undefined {
  try {
    return tokenizer.decode([id]);
  } catch {
    return undefined;
  }
}

/** @internal Returns a reward's weight. @throws {ConfigError} when it is not a finite number */
export function checkedWeight(name: string, weight: number): number {
  if (Number.isFinite(weight)) return weight;
  throw new ConfigError(`The weight of the reward ${name} is ${weight}; expected a finite number`);
}
