/**
 * Rollouts: completions that a policy writes with its current weights, to learn from them.
 *
 * Many completions are written at once, as {@linkcode Rows}. Each has its own random stream, determined by the run's
 * seed and the rollout's number in the run. On the CPU, where a row's bits do not depend on its neighbours, a rollout's
 * tokens therefore depend neither on other rollouts nor on how many are written at once. A resumed run writes the same
 * completions.
 */
import { gib } from "../engine/capacity.ts";
import { CheckpointError, ConfigError, DeviceError } from "../errors.ts";
import { slotBytes, stepWidth } from "../generate/passes.ts";
import { Rows } from "../generate/rows.ts";
import type { GPT } from "../gpt.ts";
import { isObject } from "../files/files.ts";
import { philox } from "../random/philox.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";

/** Options of a {@linkcode Roller}. */
export interface RolloutOptions extends Pick<SamplingOptions, "topK" | "topP" | "minP" | "repetitionPenalty"> {
  /** Maximum tokens in a completion, including its end token. */
  readonly maxNewTokens: number;
  /** Divides the logits; above 0. Default: 1. */
  readonly temperature?: number;
  /**
   * The end token, the last token of a finished completion. Default: none, so every completion has `maxNewTokens`
   * tokens.
   */
  readonly eosTokenId?: number;
  /**
   * How many completions are written at once. Default: as many as fit into half of the free memory, at most 64.
   */
  readonly slots?: number;
}

/** A prompt and the completion that a policy has written. */
export interface Rollout {
  /** The tokens of the prompt, then of the completion, including its end token. */
  readonly ids: Int32Array;
  /** The number of tokens in the prompt. */
  readonly from: number;
  /** False if the completion was cut off at `maxNewTokens`. Always true without an end token. */
  readonly ended: boolean;
  /** Index of the prompt. */
  readonly promptIndex: number;
}

/** Options of {@linkcode Roller.roll}: seed and numbers that determine the random streams, and a signal to abort. */
export interface RollOptions {
  /** The run's seed. */
  readonly seed: number;
  /** The number of the first rollout in the run; later rollouts count up from it. */
  readonly first: number;
  /** Aborts before the next token. */
  readonly signal?: AbortSignal;
}

/** The largest default for `slots`. More completions at once would be only a little faster. */
const MOST_SLOTS = 64;

/**
 * Writes completions with a model's current weights.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT } from "@nanogpt/ts";
 * import { Roller } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 5, blockSize: 8, nLayer: 1, nHead: 1, nEmbd: 8 }, { device });
 * using roller = new Roller(model, { maxNewTokens: 3, slots: 2 });
 * const prompts = [Int32Array.of(1, 2), Int32Array.of(3), Int32Array.of(4)];
 * const all = await roller.roll(prompts, { seed: 1, first: 0 }), [last] = await roller.roll([prompts[2]], { seed: 1, first: 2 });
 * assertEquals(all.map(({ ids, from }) => [ids.length, from]), [[5, 2], [4, 1], [4, 1]]);
 * assertEquals(last.ids, all[2].ids); // rollout number 2 is the same without the other rollouts
 * device.close();
 * ```
 */
export class Roller implements Disposable {
  /** How many completions are written at once. */ readonly slots: number;
  readonly #rows: Rows;
  readonly #options: RolloutOptions;

  /**
   * Allocates the keys and values.
   * @param model must not be disposed of before the roller; its weights may change between two calls
   * @throws {ConfigError} when an option is out of its range
   * @throws {DeviceError} when the keys and values of not even one completion fit into memory
   */
  constructor(readonly model: GPT, options: RolloutOptions) {
    const { temperature = 1, maxNewTokens, slots = slotsFor(model) } = options;
    if (!(temperature > 0)) {
      throw new ConfigError(
        `temperature is ${temperature}; expected a number above 0, because a policy learns nothing without sampling`,
      );
    }
    if (!(isCount(maxNewTokens) && maxNewTokens > 0)) {
      throw new ConfigError(`maxNewTokens is ${maxNewTokens}; expected a whole number above 0`);
    }
    this.#options = options;
    this.slots = slots;
    this.#rows = new Rows(model, { slots, piece: Math.max(128, slots * 8) });
  }

  /**
   * Writes a completion of each prompt.
   *
   * @param prompts each has at least one token and leaves room for a completion in the block size
   * @returns one rollout for each prompt, in their order
   * @throws {ConfigError} when a prompt is empty, has an id outside the vocabulary, or leaves no room
   * @throws the reason of `signal` when it aborts; unfinished completions are discarded
   */
  roll(prompts: readonly Int32Array[], options: RollOptions): Promise<Rollout[]> {
    return this.#roll(prompts, options, this.#options);
  }

  /**
   * @internal Estimates memory on a device that only counts, by writing `count` completions at once. If completions can
   *   end early, it also writes fewer at once: one number of completions for each width that a step can have.
   */
  async rehearse(prompt: Int32Array, count: number): Promise<void> {
    const most = Math.min(count, this.slots), options = { ...this.#options, eosTokenId: undefined };
    for (let n = most, width = Infinity; n > 0; n--) {
      if (stepWidth(n) === width || n < most && this.#options.eosTokenId === undefined) continue;
      width = stepWidth(n);
      await this.#roll(Array<Int32Array>(n).fill(prompt), { seed: 0, first: 0 }, options);
    }
  }

  async #roll(
    prompts: readonly Int32Array[],
    { seed, first, signal }: RollOptions,
    { slots: _, ...options }: RolloutOptions,
  ): Promise<Rollout[]> {
    const { eosTokenId } = options;
    const rollouts = new Array<Rollout>(prompts.length);
    let next = 0;
    const write = async () => {
      while (next < prompts.length) {
        signal?.throwIfAborted();
        const promptIndex = next++, prompt = prompts[promptIndex], stream = streamOf(seed, first + promptIndex);
        const row = this.#rows.add({ ...options, prompt, draws: "philox", seed: stream, signal, overflow: "refuse" });
        try {
          while (!(await row.next()).done);
        } finally {
          row.abort();
        }
        signal?.throwIfAborted();
        const ids = Int32Array.from(row.tokens), from = prompt.length;
        const ended = eosTokenId === undefined || ids.at(-1) === eosTokenId;
        rollouts[promptIndex] = { ids, from, ended, promptIndex };
      }
    };
    const writers = Array.from({ length: Math.min(this.#rows.free, prompts.length) }, write);
    const failed = (await Promise.allSettled(writers)).find(({ status }) => status === "rejected");
    if (failed) throw (failed as PromiseRejectedResult).reason;
    return rollouts;
  }

  /** Frees keys and values. */
  [Symbol.dispose](): void {
    this.#rows[Symbol.dispose]();
  }
}

/** A seed of 31 bits for one rollout: a hash, so that runs with successive seeds share no streams. */
const streamOf = (seed: number, number: number): number =>
  philox([number | 0, Math.floor(number / 2 ** 32), 0, 0], [seed | 0, Math.floor(seed / 2 ** 32)])[0] >>> 1;

function slotsFor(model: GPT): number {
  const { device } = model, { all, layer } = slotBytes(model), left = device.capacity.all - device.memory().bytes;
  const most = Math.min(MOST_SLOTS, Math.floor(Math.min(left / 2 / all, device.capacity.one / layer)));
  if (most >= 1) return most;
  throw new DeviceError(
    `Rollouts: the keys and values of one text take ${gib(all)}, but ${gib(Math.max(0, left))} are free`,
  );
}

/** @internal Whether a value is a whole number, 0 or more. */
export const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

/** Rollouts as JSON, for state.json. */
export const rolloutsToJSON = (rollouts: readonly Rollout[]): unknown[] =>
  rollouts.map(({ ids, ...rest }) => ({ ids: [...ids], ...rest }));

/** Rollouts from JSON. @throws {CheckpointError} when they are not valid; the message names the file `path` */
export function rolloutsFromJSON(saved: unknown, path: string): Rollout[] {
  const valid = (one: unknown): one is Rollout & { ids: number[] } => {
    if (!isObject(one)) return false;
    const { ids, from, ended, promptIndex } = one;
    return Array.isArray(ids) && ids.every(isCount) && isCount(from) && from > 0 && from < ids.length &&
      typeof ended === "boolean" && isCount(promptIndex);
  };
  if (!Array.isArray(saved) || !saved.every(valid)) {
    throw new CheckpointError(`${path} is damaged: its rollouts are not valid`);
  }
  return saved.map(({ ids, ...rest }) => ({ ...rest, ids: Int32Array.from(ids) }));
}
