/**
 * Rollouts: the texts that a policy writes to learn from, with the weights that it has at that moment.
 *
 * They are {@linkcode Rows}, many at once. Each draws from a random stream of its own, which its number in the run and the run's seed
 * decide, so neither the other texts nor how many are written at once change a token of it (on the CPU, where a row's bits do not
 * depend on its neighbours), and a run that goes on in the middle writes what it would have written.
 */
import { gib } from "../engine/capacity.ts";
import { CheckpointError, ConfigError, DeviceError } from "../errors.ts";
import { slotBytes, stepWidth } from "../generate/passes.ts";
import { Rows } from "../generate/rows.ts";
import type { GPT } from "../gpt.ts";
import { isObject } from "../files/files.ts";
import { philox } from "../random/philox.ts";
import type { SamplingOptions } from "../../kernels/choose/rules.ts";

/** How a {@linkcode Roller} writes. */
export interface RolloutOptions extends Pick<SamplingOptions, "topK" | "topP" | "minP" | "repetitionPenalty"> {
  /** The most tokens of a completion, with the one that ends it. */
  readonly maxNewTokens: number;
  /** Above 0; default 1. */
  readonly temperature?: number;
  /** The token that ends a completion, and is its last. Default: none, and every completion has `maxNewTokens`. */
  readonly eosTokenId?: number;
  /** How many texts are written at once. Default 64, or as many as half of the memory that is left has room for. */
  readonly slots?: number;
}

/** What a policy has written. */
export interface Rollout {
  /** The prompt's tokens, then the completion's, with the one that ends it. */
  readonly ids: Int32Array;
  /** How many of them are the prompt's. */
  readonly from: number;
  /** Whether it is complete: its end came, rather than `maxNewTokens`, or there is no token that ends it. */
  readonly ended: boolean;
  /** Which of the prompts it goes on from. */
  readonly promptIndex: number;
}

/** Which random streams rollouts draw from, and when they are given up. */
export interface RollOptions {
  /** Of the run. */
  readonly seed: number;
  /** The first rollout's number in the run; the next ones follow. */
  readonly first: number;
  /** Gives up before the next token. */
  readonly signal?: AbortSignal;
}

/** How many texts are written at once, where there is room: more make a step faster by little. */
const MOST_SLOTS = 64;

/**
 * Writes texts with a model's weights of the moment.
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
 * assertEquals(last.ids, all[2].ids); // the number decides, not what is written beside it
 * device.close();
 * ```
 */
export class Roller implements Disposable {
  /** How many texts are written at once. */ readonly slots: number;
  readonly #rows: Rows;
  readonly #options: RolloutOptions;

  /**
   * Makes room for keys and values.
   * @param model has to live as long as the roller; its weights may change between two calls
   * @throws {ConfigError} when an option is out of its range
   * @throws {DeviceError} when not even one text fits into the device's memory
   */
  constructor(readonly model: GPT, options: RolloutOptions) {
    const { temperature = 1, maxNewTokens, slots = slotsFor(model) } = options;
    if (!(temperature > 0)) {
      throw new ConfigError(
        `temperature is ${temperature}; expected a number above 0, for a policy that draws nothing does not learn`,
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
   * @param prompts one token or more each, with room for a completion in the block size
   * @returns in the order of the prompts
   * @throws {ConfigError} when a prompt is empty, not of the vocabulary, or leaves no room
   * @throws what `signal` gives for its reason, where it has aborted: then nothing is left of the texts
   */
  roll(prompts: readonly Int32Array[], options: RollOptions): Promise<Rollout[]> {
    return this.#roll(prompts, options, this.#options);
  }

  /**
   * @internal On a device that only counts: writes as many texts at once as there will be, and, where some may end before others, each
   * number of them that has a step of its own.
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

/** A seed of 31 bits for one text. Mixed, so that runs whose seeds follow each other have no streams in common. */
const streamOf = (seed: number, number: number): number =>
  philox([number | 0, Math.floor(number / 2 ** 32), 0, 0], [seed | 0, Math.floor(seed / 2 ** 32)])[0] >>> 1;

function slotsFor(model: GPT): number {
  const { device } = model, { all, layer } = slotBytes(model), left = device.capacity.all - device.memory().bytes;
  const most = Math.min(MOST_SLOTS, Math.floor(Math.min(left / 2 / all, device.capacity.one / layer)));
  if (most >= 1) return most;
  throw new DeviceError(
    `Rollouts: keys and values of one text take ${gib(all)}, and ${gib(Math.max(0, left))} are left`,
  );
}

/** @internal Whether it is a whole number, 0 or above. */
export const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0;

/** Rollouts as JSON, for state.json. */
export const rolloutsToJSON = (rollouts: readonly Rollout[]): unknown[] =>
  rollouts.map(({ ids, ...rest }) => ({ ids: [...ids], ...rest }));

/** And back. @throws {CheckpointError} when they are not such; `path` is the file's */
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
