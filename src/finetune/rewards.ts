/**
 * What scores the texts that a policy writes: a model that was trained on preferences, or a function in TypeScript. Several of them
 * are added up with weights.
 */
import { ConfigError, TrainingError } from "../errors.ts";
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
          `The reward ${name} gives ${scores[i]}, expected a finite number\n${afterPrompt(sample)}`,
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
   * @param options.seconds that one call may take, as may loading; default 30
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

const fileName = (path: string): string => path.replace(/.*[/\\]/, "").replace(/\.\w+$/, "");

/** @throws {ConfigError} when it is not a finite number */
function checkedWeight(name: string, weight: number): number {
  if (Number.isFinite(weight)) return weight;
  throw new ConfigError(`The weight of the reward ${name} is ${weight}; expected a finite number`);
}
