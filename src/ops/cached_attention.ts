import { attentionCached } from "../../kernels/attention/cached.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { attentionShapes } from "./causal_self_attention.ts";

/**
 * Causal self-attention of new tokens to those before them, whose keys and values are kept in a cache: what {@linkcode
 * causalSelfAttention} gives for the last T tokens, without computing the earlier ones again.
 *
 * The new keys and values are written into the cache. There is no derivative: backward through it throws.
 *
 * @param qkv f32 (B, T, 3C) of the new tokens: T = 1 when decoding, the length of the prompt at first
 * @param cache f32 (B, S, 2, nh, hs): keys and values of up to S tokens, updated in place; rows not yet written may
 *   hold anything
 * @param options.position i32 (1): how many tokens the cache holds already, at most S − T
 * @param options.heads how many heads C is divided into: nh
 * @returns f32 (B, T, C)
 * @throws {ShapeError} when the shapes disagree, or the new tokens do not fit behind a position that the host wrote
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { cachedAttention } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * const cache = device.tensor([0, 10, 0, 0], [1, 2, 2, 1, 1]); // of two places, the first taken: key 0, value 10
 * const position = device.tensor([1], [1], { dtype: "i32" }), qkv = device.tensor([1, 0, 30], [1, 1, 3]);
 * assertEquals([...await cachedAttention(qkv, cache, { position, heads: 1 }).data()], [20]); // the mean of both values
 * assertEquals([...await cache.data()], [0, 10, 0, 30]);
 * device.close();
 * ```
 */
export function cachedAttention(
  qkv: Tensor,
  cache: Tensor,
  { position, heads }: { position: Tensor; heads: number },
): Tensor {
  using scope = qkv.device.scope("cachedAttention");
  const { packed, C, rows: [B, T, , width] } = attentionShapes("cachedAttention", qkv.shape, heads);
  const refuse = (why: string) =>
    new ShapeError(`Cannot apply cachedAttention to [${qkv.shape}] and [${cache.shape}]: ${why}`);
  const S = cache.shape[1], { bounds } = position.storage.block;
  if (`${cache.shape}` !== `${[B, S, 2, heads, width]}`) {
    throw refuse(`the cache is expected as [${B},S,2,${heads},${width}]`);
  }
  if (T > S || (bounds && (bounds.least < 0 || bounds.greatest + T > S))) {
    throw refuse(`${T} tokens at position ${bounds?.greatest ?? "?"} do not fit into a cache of ${S}`);
  }
  const y = launch(attentionCached, { qkv: qkv.alias(packed), position, cache }).y.alias([B, T, C]);
  record("cachedAttention", y, [qkv], [], () => {
    throw new TypeError(
      "Cannot apply backward to cachedAttention: it has no derivative; train with causalSelfAttention",
    );
  });
  return scope.keep(y);
}
