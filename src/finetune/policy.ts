/**
 * What tuning on preferences and by rewards have in common: the probability that a policy gives to each token of a text, the policy
 * that it is compared with, and scores of many texts outside of an update.
 *
 * Dropout is off in all of these, in updates too: a ratio of probabilities says what an update has changed only where nothing else
 * differs between its two sides.
 */
import { paddedLength, paddedLengths } from "../data/token_rows.ts";
import { noGrad } from "../engine/autograd.ts";
import type { Tensor } from "../engine/tensor.ts";
import { ConfigError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import type { NumberArray } from "../kernel.ts";
import { Breather } from "../loop/breather.ts";
import { evaluating, type Module } from "../nn/module.ts";
import { type LogprobStatistics, logprobStatistics } from "../ops/logprobs.ts";
import { BatchPasses } from "../train/batch_passes.ts";
import type { MicroBatch } from "../train/task.ts";
import { Lora } from "./lora.ts";

/** The target of a token after which nothing is counted. */
export const NOTHING: number = -1;

/** What {@linkcode tokenLogprobs} looks at. */
export interface TokenBatch {
  /** i32 (B, T), rows padded on the right. */ readonly tokens: Tensor;
  /** i32 (B, T): the token after each, −1 where it does not count. */ readonly targets: Tensor;
  /** i32 (B, T), as `model.hidden` takes them. */ readonly positions?: Tensor;
  /** (B, T, C): the final hidden states, where the caller has them already, from a pass without dropout. */
  readonly hidden?: Tensor;
}

/**
 * The log-probability that a model gives to the token after each, with its gradient, and what the same pass tells besides.
 *
 * @param options.temperature what logits are divided by, as in sampling; default 1
 * @returns f32 (B, T), in nats, 0 where targets are −1: `logprobs`; and without a gradient the `entropy` of the next token, the `mean`
 *   of the logits, and whether the target was the likeliest, 0 or 1: `hit`
 */
export function tokenLogprobs(
  model: GPT,
  { tokens, targets, positions, hidden }: TokenBatch,
  { temperature = 1 }: { readonly temperature?: number } = {},
): LogprobStatistics {
  using scope = model.device.scope();
  const found = evaluating(model, () => {
    const states = hidden ?? model.hidden(tokens, { positions }); // (B, T, C)
    return logprobStatistics(model.lm_head.forward(states), targets, { ignoreIndex: NOTHING, temperature });
  });
  for (const tensor of Object.values(found)) scope.keep(tensor);
  return found;
}

/**
 * The policy that a penalty measures the distance to: another model, frozen, or the policy itself with its adapter off.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, GPT } from "@nanogpt/ts";
 * import { applyLora, ReferencePolicy } from "@nanogpt/ts/finetune";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * using lora = applyLora(model, { rank: 2 });
 * const reference = new ReferencePolicy(model, lora);
 * assertEquals(reference.run((base) => [base === model, lora.enabled]), [true, false]);
 * assertEquals(lora.enabled, true);
 * ```
 */
export class ReferencePolicy {
  readonly #policy: GPT;
  #reference: GPT | Lora | (() => Lora);

  /**
   * A policy to be compared with.
   * @param reference a model that is not trained, with the policy's vocabulary and block size; or the policy's adapter, which a function
   *   gives at the first run where it is put on later
   * @throws {ConfigError} when the model is another kind of model, or the adapter is on another
   */
  constructor(policy: GPT, reference: GPT | Lora | (() => Lora)) {
    this.#policy = policy;
    this.#reference = reference;
    if (typeof reference !== "function") check(policy, reference);
  }

  /** The model that is run. */
  get model(): GPT {
    const { reference } = this;
    return reference instanceof Lora ? this.#policy : reference;
  }
  /** What it was made with. */
  get reference(): GPT | Lora {
    if (typeof this.#reference === "function") check(this.#policy, this.#reference = this.#reference());
    return this.#reference;
  }

  /**
   * Runs `body` with the reference policy, without dropout and without recording.
   *
   * @returns what `body` returns
   */
  run<T>(body: (model: GPT) => T): T {
    const { reference, model } = this, pass = () => evaluating(model, () => noGrad(() => body(model)));
    if (!(reference instanceof Lora) || !reference.enabled) return pass();
    reference.enabled = false;
    try {
      return pass();
    } finally {
      reference.enabled = true;
    }
  }
}

/** @throws {ConfigError} */
function check(policy: GPT, reference: GPT | Lora): void {
  if (reference instanceof Lora) {
    if (reference.model === policy) return;
    throw new ConfigError("ReferencePolicy: the adapter is on another model");
  }
  for (const name of ["vocabSize", "blockSize"] as const) {
    const own = policy.config[name], there = reference.config[name];
    if (there >= own) continue;
    throw new ConfigError(`the reference model's ${name} is ${there}, expected the policy's ${own} or more`);
  }
}

/**
 * Passes outside of an update, without dropout and gradients: the first of each set of shapes is captured, the others replay it.
 */
export class CapturedPasses implements Disposable {
  readonly #passes: BatchPasses;

  /**
   * Passes of which nothing is captured yet.
   * @param module what the passes go through: where it changes, they are captured anew
   * @param body makes the numbers that are read; whatever else it goes through does not change
   * @throws {ConfigError} when the module has no parameters
   */
  constructor(readonly module: Module, readonly body: (batch: Readonly<Record<string, Tensor>>) => Tensor) {
    const { value: parameter } = module.parameters().next();
    if (!parameter) throw new ConfigError("CapturedPasses: the module has no parameters");
    this.#passes = new BatchPasses(module, parameter.device);
  }

  /**
   * Runs `body` on arrays.
   *
   * @returns what it makes of them, read
   * @throws {DataError} when an integer is outside its range
   */
  async run(arrays: MicroBatch["arrays"]): Promise<NumberArray> {
    const { tensors, captured } = this.#passes.load(arrays), { device } = this.#passes, { program } = captured;
    program?.replay();
    const result = program?.result ?? captured.capture(device, () =>
      evaluating(this.module, () =>
        noGrad(() => {
          using scope = device.scope();
          return scope.keep(this.body(tensors));
        })));
    return await result.data();
  }

  /** Frees the programs and the tensors that they read. */ [Symbol.dispose](): void {
    this.#passes[Symbol.dispose]();
  }
}

/** A text, and where in it the tokens begin whose log-probabilities are wanted. */
export interface ScoredRow {
  /** Of the whole text. */ readonly ids: Int32Array;
  /** 1 or more: nothing stands before the first token. */ readonly from: number;
}

/** How {@linkcode Scorer} makes batches. */
export interface ScorerOptions {
  /** Rows of a batch. */ readonly batchSize: number;
  /** Tokens of the longest text. */ readonly maxLength: number;
  /** What logits are divided by; default 1. */ readonly temperature?: number;
}

/** Log-probabilities of many texts under a model or a reference policy, in batches of one of a few shapes. */
export class Scorer implements Disposable {
  readonly #passes: CapturedPasses;
  readonly #lengths: readonly number[];

  /** A scorer of texts under `policy`. */
  constructor(readonly policy: GPT | ReferencePolicy, readonly options: ScorerOptions) {
    const { maxLength, temperature } = options;
    const of = (model: GPT, { tokens, targets }: Readonly<Record<string, Tensor>>) =>
      tokenLogprobs(model, { tokens, targets }, { temperature }).logprobs;
    this.#lengths = paddedLengths(maxLength);
    this.#passes = policy instanceof ReferencePolicy
      ? new CapturedPasses(policy.model, (batch) => policy.run((model) => of(model, batch)))
      : new CapturedPasses(policy, (batch) => of(policy, batch));
  }

  /**
   * Scores texts: `batchSize` at a time, in their order, padded as {@linkcode rowArrays} does it.
   *
   * @param options.signal ends it before the next batch, with the signal's reason
   * @returns for each text a number for each of its tokens from `from` on, in nats
   */
  async logprobs(
    rows: readonly ScoredRow[],
    { signal, onProgress }: { signal?: AbortSignal; onProgress?: (done: number) => void } = {},
  ): Promise<Float32Array[]> {
    const { batchSize } = this.options, { vocabSize } = this.#model.config, found: Float32Array[] = [];
    const breather = new Breather();
    for (let at = 0; at < rows.length; at += batchSize) {
      signal?.throwIfAborted();
      const some = rows.slice(at, at + batchSize);
      const arrays = rowArrays(some, { lengths: this.#lengths, batchSize, vocabSize }), [, T] = arrays.tokens.shape;
      const values = await this.#passes.run(arrays);
      for (const [row, { ids, from }] of some.entries()) {
        found.push(Float32Array.from(values.subarray(row * T + from - 1, row * T + ids.length - 1)));
      }
      onProgress?.(found.length);
      await breather.breathe();
    }
    return found;
  }

  get #model(): GPT {
    return this.policy instanceof ReferencePolicy ? this.policy.model : this.policy;
  }
  /** Frees its programs; the policy stays. */ [Symbol.dispose](): void {
    this.#passes[Symbol.dispose]();
  }
}

/**
 * The arrays of a batch of texts: `tokens` and `targets`, both (B, T) with B = `batchSize` and T the least of `lengths` that holds the
 * longest. Rows are padded on the right; the target of a token is the one after it, from the one before `from` on, else −1.
 */
export function rowArrays(
  rows: readonly ScoredRow[],
  { lengths, batchSize, vocabSize }: {
    readonly lengths: readonly number[];
    readonly batchSize: number;
    readonly vocabSize: number;
  },
): Record<"tokens" | "targets", MicroBatch["arrays"][string] & { readonly values: Int32Array }> {
  const T = paddedLength(Math.max(1, ...rows.map(({ ids }) => ids.length)), lengths), shape = [batchSize, T];
  const tokens = new Int32Array(batchSize * T), targets = new Int32Array(batchSize * T).fill(NOTHING);
  for (const [row, { ids, from }] of rows.entries()) {
    tokens.set(ids, row * T);
    targets.set(ids.subarray(from), row * T + from - 1);
  }
  return {
    tokens: { values: tokens, shape, range: [0, vocabSize - 1] },
    targets: { values: targets, shape, range: [NOTHING, vocabSize - 1] },
  };
}
