/**
 * Measures how well a model predicts a text: perplexity over overlapping windows, as on the page "Perplexity of
 * fixed-length models" in transformers' documentation, and bits per byte, which can be compared between tokenizers.
 */
import { noGrad } from "../engine/autograd.ts";
import { Breather } from "../loop/breather.ts";
import { ConfigError, DataError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { evaluating } from "../nn/module.ts";
import type { EncodeOptions, Tokenizer } from "../tokenizer/tokenizer.ts";

/** Options of an evaluation: the windows in which a text is scored, a callback for progress, and a signal to stop. */
export interface EvaluateOptions {
  /** Tokens in a window, at most the block size. Default: the block size. */
  readonly maxLength?: number;
  /**
   * Tokens from the start of one window to the start of the next, at most `maxLength`. After the first window, only the
   * last `stride` tokens of a window are scored; the tokens before them are context, scored in earlier windows. A
   * smaller stride gives each token more context and takes longer. Default: half the window, which is 512 for GPT-2's
   * 1024.
   */
  readonly stride?: number;
  /** Stops the evaluation: its promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Called after each batch of windows with the number of tokens done and the total. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** How well a model predicts a sequence of tokens. */
export interface Evaluation {
  /** exp(loss). Every scored token has the same weight. */
  readonly perplexity: number;
  /** Mean cross-entropy over the scored tokens, in nats per token. */
  readonly loss: number;
  /**
   * The perplexity that the loop in transformers' documentation computes. It weights each window's mean loss by the
   * number of the window's new tokens minus one, as if the first new token of every window could not be scored. If
   * windows overlap, that is true only of the first window, so the result differs from `perplexity`. With a stride of 1
   * only the first window has a weight above 0.
   */
  readonly transformersPerplexity: number;
  /**
   * How many tokens were scored: all except the text's first token, or, if windows do not overlap, all except the first
   * token of each window.
   */
  readonly tokens: number;
}

/** How well a model predicts a text. */
export interface TextEvaluation extends Evaluation {
  /** Loss in bits per byte of UTF-8 (Gao et al. 2020, arXiv:2101.00027): tokens / bytes · loss / ln 2. */
  readonly bitsPerByte: number;
  /** Length of the text in bytes of UTF-8. */
  readonly bytes: number;
}

/**
 * How many tokens the windows of one forward pass have together. This is enough to be fast with small models, and few
 * enough that their logits take little memory.
 */
const TOKENS_AT_ONCE = 1024;

/**
 * Computes the perplexity of a sequence of tokens.
 *
 * @param tokens at least two ids
 * @throws {ConfigError} when maxLength or stride is out of range
 * @throws {DataError} when there are fewer than two tokens, or an id is not in the vocabulary
 * @see https://huggingface.co/docs/transformers/perplexity
 * @example
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { createDevice, GPT, perplexity } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 1, nHead: 2, nEmbd: 16 }, { device });
 * const result = await perplexity(model, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], { stride: 4 });
 * assertAlmostEquals(result.perplexity, 65, 3); // an untrained model: all 65 tokens are about equally likely
 * device.close();
 * ```
 */
export async function perplexity(
  model: GPT,
  tokens: ArrayLike<number>,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { maxLength = model.config.blockSize, stride = Math.max(1, maxLength >> 1), signal, onProgress } = options;
  check(model, tokens, maxLength, stride);
  const breather = new Breather(), total = tokens.length;
  let weighted = 0, weights = 0, loss = 0, judged = 0;
  for (const { begins, length, fresh } of batches(total, maxLength, stride)) {
    signal?.throwIfAborted();
    const count = Math.min(fresh, length - 1); // without context, nothing predicts a window's first token
    if (count > 0) {
      const windows = begins.map((begin) => Array.from({ length }, (_, i) => tokens[begin + i]));
      const mean = await meanLoss(model, windows, count), n = begins.length;
      weighted += mean * n * (fresh - 1);
      weights += n * (fresh - 1);
      loss += mean * n * count;
      judged += n * count;
    }
    onProgress?.(begins.at(-1)! + length, total);
    await breather.breathe();
  }
  const mean = loss / judged;
  return {
    perplexity: Math.exp(mean),
    loss: mean,
    transformersPerplexity: Math.exp(weighted / weights),
    tokens: judged,
  };
}

/**
 * Computes the perplexity and the bits per byte of a text.
 *
 * @param options.tokenizer the model's tokenizer
 * @throws {ConfigError} when maxLength or stride is out of range
 * @throws {DataError} when the text has fewer than two tokens, or the tokenizer cannot encode it
 */
export async function evaluateText(
  model: GPT,
  text: string,
  options: EvaluateOptions & EncodeOptions & { tokenizer: Pick<Tokenizer, "encode"> },
): Promise<TextEvaluation> {
  const tokens = options.tokenizer.encode(text, options), bytes = new TextEncoder().encode(text).length;
  const result = await perplexity(model, tokens, options);
  return { ...result, bytes, bitsPerByte: tokens.length / bytes * result.loss / Math.LN2 };
}

/**
 * Successive windows of equal length, which are scored in one forward pass: where each begins, their length, and how
 * many tokens at the end of each window are new.
 */
interface Batch {
  readonly begins: number[];
  readonly length: number;
  readonly fresh: number;
}

function* batches(total: number, maxLength: number, stride: number): Generator<Batch> {
  let batch: Batch | undefined;
  for (let begin = 0, before = 0; before < total; begin += stride) {
    const end = Math.min(begin + maxLength, total), length = end - begin, fresh = end - before;
    const alike = batch?.length === length && batch.fresh === fresh &&
      (batch.begins.length + 1) * length <= TOKENS_AT_ONCE;
    if (batch && alike) batch.begins.push(begin);
    else {
      if (batch) yield batch;
      batch = { begins: [begin], length, fresh };
    }
    before = end;
  }
  if (batch) yield batch;
}

/** The mean loss of the last `count` tokens of each window. All windows have the same length. */
async function meanLoss(model: GPT, windows: readonly (readonly number[])[], count: number): Promise<number> {
  const { device } = model, T = windows[0].length - 1, shape = [windows.length, T];
  const forward = () => {
    using scope = device.scope();
    const tokens = device.tensor(windows.flatMap((ids) => ids.slice(0, T)), shape, { dtype: "i32" });
    const judged = windows.flatMap((ids) => ids.slice(1).map((id, t) => t < T - count ? -1 : id));
    const targets = device.tensor(judged, shape, { dtype: "i32" });
    return scope.keep(noGrad(() => model.forward(tokens, targets)).loss);
  };
  const loss = evaluating(model, forward);
  const value = await loss.item();
  loss.dispose();
  return value;
}

function check(model: GPT, tokens: ArrayLike<number>, maxLength: number, stride: number): void {
  const { blockSize, vocabSize } = model.config;
  if (!(Number.isSafeInteger(maxLength) && maxLength >= 2 && maxLength <= blockSize)) {
    throw new ConfigError(
      `maxLength is ${maxLength}; expected a whole number from 2 to the block size of ${blockSize}`,
    );
  }
  if (!(Number.isSafeInteger(stride) && stride >= 1 && stride <= maxLength)) {
    throw new ConfigError(`stride is ${stride}; expected a whole number from 1 to maxLength, which is ${maxLength}`);
  }
  if (tokens.length < 2) {
    throw new DataError(
      `${tokens.length} tokens are too few; expected two or more, because nothing predicts the first`,
    );
  }
  for (let i = 0; i < tokens.length; i++) {
    const id = tokens[i];
    if (Number.isSafeInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new DataError(`token ${i} is ${id}, and the model's vocabulary ends at ${vocabSize - 1}`);
  }
}
