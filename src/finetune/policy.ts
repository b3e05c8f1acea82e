/**
 * What tuning on preferences and tuning by rewards share: the log-probability of each token of a text under a policy,
 * the reference policy that a policy is compared with, and log-probabilities of many texts outside of updates.
 *
 * Dropout is always off here, in updates too. A ratio of two probabilities measures what an update changed only if
 * nothing else differs between the two passes.
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

/** The target at positions whose next token is ignored. */
export const NOTHING: number = -1;

/** The input of {@linkcode tokenLogprobs}. */
export interface TokenBatch {
  /** i32 (B, T), rows padded on the right. */ readonly tokens: Tensor;
  /** i32 (B, T): the next token of each position, or −1 if it is ignored. */ readonly targets: Tensor;
  /** (B, T, C): the final hidden states, if the caller has computed them already, without dropout. */
  readonly hidden?: Tensor;
}

/**
 * Computes the log-probability of the next token at each position, with a gradient, and statistics from the same pass.
 *
 * @param options.temperature divides the logits, as in sampling; default: 1
 * @returns four f32 tensors (B, T), 0 where the target is −1: `logprobs` in nats; and without a gradient the `entropy`
 *   of the next token's distribution in nats, the `mean` of the logits, and `hit`: 1 if the target has the highest
 *   logit, else 0
 */
export function tokenLogprobs(
  model: GPT,
  { tokens, targets, hidden }: TokenBatch,
  { temperature = 1 }: { readonly temperature?: number } = {},
): LogprobStatistics {
  using scope = model.device.scope();
  const found = evaluating(model, () => {
    const states = hidden ?? model.hidden(tokens); // (B, T, C)
    return logprobStatistics(model.lm_head.forward(states), targets, { ignoreIndex: NOTHING, temperature });
  });
  for (const tensor of Object.values(found)) scope.keep(tensor);
  return found;
}

/**
 * The policy that a trained policy is compared with: a separate, frozen model, or the policy's own model with its
 * adapter disabled.
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
   * Creates a reference for `policy`.
   * @param reference a frozen model whose vocabulary and block size are at least the policy's; or the policy's adapter;
   *   or a function that returns the adapter, called when the reference is first used, for an adapter not yet applied
   * @throws {ConfigError} when the reference model is too small, or the adapter belongs to a different model
   */
  constructor(policy: GPT, reference: GPT | Lora | (() => Lora)) {
    this.#policy = policy;
    this.#reference = reference;
    if (typeof reference !== "function") check(policy, reference);
  }

  /** The model that `run` uses: the reference model, or the policy's model if the reference is its adapter. */
  get model(): GPT {
    const { reference } = this;
    return reference instanceof Lora ? this.#policy : reference;
  }
  /** The reference model, or the policy's adapter. */
  get reference(): GPT | Lora {
    if (typeof this.#reference === "function") check(this.#policy, this.#reference = this.#reference());
    return this.#reference;
  }

  /**
   * Runs `body` with the reference policy, without dropout and without recording gradients.
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

/** @throws {ConfigError} when the reference does not fit the policy */
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
 * Runs passes outside of updates, without dropout and gradients. The first pass for each set of shapes is captured;
 * later passes with these shapes replay it.
 */
export class CapturedPasses implements Disposable {
  readonly #passes: BatchPasses;

  /**
   * Creates the passes without running them.
   * @param module the module that the passes run; when one of its fields changes, passes are captured again
   * @param body computes the result; if it runs further modules, these must not change
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
   * @returns the values of the tensor that `body` returns
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

  /** Frees the captured programs and their input tensors. */ [Symbol.dispose](): void {
    this.#passes[Symbol.dispose]();
  }
}

/** A text, and the index of the first token whose log-probability is computed. */
export interface ScoredRow {
  /** The tokens of the whole text. */ readonly ids: Int32Array;
  /** At least 1, because nothing predicts the first token. */ readonly from: number;
}

/** Options of {@linkcode Scorer}. */
export interface ScorerOptions {
  /** Rows in a batch. */ readonly batchSize: number;
  /** Maximum tokens in a text. */ readonly maxLength: number;
  /** Divides the logits. Default: 1. */ readonly temperature?: number;
}

/** Computes log-probabilities of many texts under a model or a reference policy, in batches of a few fixed shapes. */
export class Scorer implements Disposable {
  readonly #passes: CapturedPasses;
  readonly #lengths: readonly number[];

  /** Creates a scorer of texts under `policy`. */
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
   * Computes the log-probabilities of texts, `batchSize` at a time, in their order, padded by {@linkcode rowArrays}.
   *
   * @param options.signal aborts before the next batch, with the signal's reason
   * @returns for each text the log-probabilities of its tokens from index `from` on, in nats
   */
  async logprobs(
    rows: readonly ScoredRow[],
    { signal }: { signal?: AbortSignal } = {},
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
      await breather.breathe();
    }
    return found;
  }

  get #model(): GPT {
    return this.policy instanceof ReferencePolicy ? this.policy.model : this.policy;
  }
  /** Frees the captured programs. The policy is not freed. */ [Symbol.dispose](): void {
    this.#passes[Symbol.dispose]();
  }
}

/**
 * The arrays of a batch of texts: `tokens` and `targets`, both (B, T), where B = `batchSize` and T is the smallest of
 * `lengths` that holds the longest text. Rows are padded on the right. The target at position t is token t + 1 if
 * t ≥ `from` − 1, otherwise −1.
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
