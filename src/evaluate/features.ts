/**
 * The intermediate results of a model, as transformers' `GPT2Model` and `GPT2LMHeadModel` return them: hidden states,
 * attentions, keys, values, logits, and the loss of labels.
 *
 * They are computed from the states that `model.hidden` passes to a callback. The model's fused attention never stores
 * the matrix of attention probabilities; `outputAttentions` computes it separately from the queries and keys. Letters in
 * shapes: B sequences, T tokens, C channels, V entries of the vocabulary, nh heads of width hs.
 */
import { ShapeError } from "../errors.ts";
import type { GPT } from "../gpt.ts";
import { add, crossEntropy, matmul, mul, permute, reshape, slice, softmax, transpose } from "../ops/mod.ts";
import type { Tensor } from "../engine/tensor.ts";

/** What to return besides the last hidden state, under transformers' names. */
export interface FeatureOptions {
  /** Whether to return the embeddings and every block's output. Default: false. */
  readonly outputHiddenStates?: boolean;
  /** Whether to return every block's attention probabilities. Default: false. */
  readonly outputAttentions?: boolean;
  /** Whether to return keys and values. Default: false. */
  readonly useCache?: boolean;
  /** Whether to return the logits of every position. Default: true if there are labels. */
  readonly outputLogits?: boolean;
  /**
   * i32 (B, T), not shifted, as in transformers: usually the tokens themselves. The logits at t are scored against the
   * label at t + 1, and the label −100 is ignored. (The targets of `model.forward` are shifted by the caller, as in
   * nanoGPT.)
   */
  readonly labels?: Tensor;
}

/** The result of {@linkcode features}. */
export interface Features {
  /** (B, T, C), after the last layer norm. */
  readonly lastHiddenState: Tensor;
  /**
   * nLayer + 1 tensors (B, T, C): the embeddings, then each block's output. The last block's output has passed through
   * the last layer norm.
   */
  readonly hiddenStates?: readonly Tensor[];
  /** For each layer (B, nh, T, T): at [b, h, t, s] the probability with which query t attends to key s; 0 for s > t. */
  readonly attentions?: readonly Tensor[];
  /** For each layer its keys and values, (B, nh, T, hs) each. */
  readonly pastKeyValues?: readonly (readonly [key: Tensor, value: Tensor])[];
  /** (B, T, V) */
  readonly logits?: Tensor;
  /** Mean cross-entropy in nats per token, shape (). */
  readonly loss?: Tensor;
}

/**
 * Runs the model over tokens and returns its intermediate results. In training mode dropout applies; `model.eval()` or
 * `evaluating` switches it off. The returned attentions are the probabilities before dropout. Gradients flow through
 * all results, except inside `noGrad`.
 *
 * @param tokens i32 (B, T), T at most the block size
 * @throws {ShapeError} when T exceeds the block size, or the shape of the labels differs from the tokens'
 * @see https://huggingface.co/docs/transformers/model_doc/gpt2
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice, features, GPT, noGrad } from "@nanogpt/ts";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const model = new GPT({ vocabSize: 65, blockSize: 8, nLayer: 2, nHead: 2, nEmbd: 16 }, { device });
 * const tokens = device.tensor([1, 2, 3], [1, 3], { dtype: "i32" });
 * const { lastHiddenState, attentions } = noGrad(() => features(model, tokens, { outputAttentions: true }));
 * assertEquals(lastHiddenState.shape, [1, 3, 16]);
 * assertEquals(attentions!.map(({ shape }) => shape), [[1, 2, 3, 3], [1, 2, 3, 3]]);
 * device.close();
 * ```
 */
export function features(
  model: GPT,
  tokens: Tensor,
  options: FeatureOptions & { readonly labels: Tensor },
): Features & { readonly loss: Tensor };
/** Without labels, the result has no loss. */
export function features(model: GPT, tokens: Tensor, options?: FeatureOptions): Features;
export function features(model: GPT, tokens: Tensor, options: FeatureOptions = {}): Features {
  const { device, config: { nHead, nLayer }, transformer: { h } } = model;
  const { outputHiddenStates, outputAttentions, useCache, labels, outputLogits = labels !== undefined } = options;
  using scope = device.scope();
  const hiddenStates: Tensor[] = [], attentions: Tensor[] = [], pastKeyValues: [Tensor, Tensor][] = [];
  const each = (x: Tensor, layer: number) => {
    hiddenStates.push(x);
    if (layer === nLayer || !(outputAttentions || useCache)) return;
    const { attn, ln_1 } = h[layer], [query, key, value] = heads(attn.c_attn.forward(ln_1.forward(x)), nHead);
    if (outputAttentions) attentions.push(attention(query, key));
    pastKeyValues.push([key, value]);
  };
  const x = model.hidden(tokens, { each });
  const logits = outputLogits || labels ? model.lm_head.forward(x) : undefined; // (B, T, V)
  const loss = labels && shiftedLoss(logits!, labels);

  if (outputHiddenStates) hiddenStates.forEach((state) => scope.keep(state));
  attentions.forEach((probabilities) => scope.keep(probabilities));
  if (useCache) pastKeyValues.flat().forEach((past) => scope.keep(past));
  return {
    lastHiddenState: scope.keep(x),
    ...(outputHiddenStates && { hiddenStates }),
    ...(outputAttentions && { attentions }),
    ...(useCache && { pastKeyValues }),
    ...(outputLogits && { logits: scope.keep(logits) }),
    ...(loss && { loss: scope.keep(loss) }),
  };
}

/** Splits a tensor (B, T, 3C) into the queries, keys and values of all heads, (B, nh, T, hs) each. */
function heads(qkv: Tensor, nHead: number): Tensor[] {
  const [B, T, C3] = qkv.shape, width = C3 / 3 / nHead;
  const apart = permute(reshape(qkv, [B, T, 3, nHead, width]), [2, 0, 3, 1, 4]); // (3, B, nh, T, hs)
  return [0, 1, 2].map((part) => reshape(slice(apart, { axis: 0, start: part, end: part + 1 }), [B, nHead, T, width]));
}

/** softmax(q · kᵀ / √hs) over the keys up to the query's own position: (B, nh, T, T). */
function attention(query: Tensor, key: Tensor): Tensor {
  const { device } = query, [, , T, width] = query.shape;
  const hidden = device.tensor(Float32Array.from({ length: T * T }, (_, i) => i % T > i / T ? -1e30 : 0), [T, T]);
  const scale = device.tensor([1 / Math.sqrt(width)], [1]);
  const scores = matmul(mul(query, scale), transpose(key, [-2, -1])); // (B, nh, T, T)
  return softmax(add(scores, hidden));
}

function shiftedLoss(logits: Tensor, labels: Tensor): Tensor {
  const [B, T, V] = logits.shape;
  if (`${labels.shape}` !== `${[B, T]}` || T < 2) {
    throw new ShapeError(`features: labels are [${labels.shape}], expected [${B},${T}] with two tokens or more`);
  }
  const next = slice(labels, { axis: 1, start: 1 }), scores = slice(logits, { axis: 1, end: T - 1 });
  return crossEntropy(reshape(scores, [B * (T - 1), V]), next.alias([B * (T - 1)]), { ignoreIndex: -100 });
}
