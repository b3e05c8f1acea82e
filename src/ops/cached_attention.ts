import { attentionCached } from "../../kernels/attention/cached.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";

/** Where in a key-value cache the N tokens of a pass are stored. */
export interface Places {
  /** i32 (N): each token's slot, from 0. −1 marks an idle token, which pads a pass of a fixed size. */
  readonly slot: Tensor;
  /** i32 (N): each token's position in its slot and in its text, from 0. */
  readonly position: Tensor;
}

/** Limit of S: a query's scores, one for each cached token, must fit into a thread's scratch memory of 2 MiB. */
const MOST_PLACES = 2 ** 18;

/**
 * Causal self-attention of new tokens, of one text or several, whose earlier tokens have their keys and values in a
 * cache. The result is what {@linkcode causalSelfAttention} computes for the new tokens, without computing the earlier
 * tokens again.
 *
 * First the new keys and values are written into the cache; then token n attends to positions 0 to `position[n]` of
 * slot `slot[n]`. An idle token gets zeros and writes nothing. On the CPU, a token's bits do not depend on the other
 * tokens of the pass. There is no derivative: backward through this op throws.
 *
 * @param qkv f32 (…, 3C) of N new tokens: queries, keys and values side by side
 * @param cache f32 or bf16 (slots, nh, S, 2, hs): keys and values of up to S tokens in each slot, updated in place.
 *   Positions not yet written may hold anything. A bf16 cache rounds to the nearest on writing; the same pass reads the
 *   rounded values too
 * @param places slot and position of each of the N tokens, no two alike
 * @returns f32 (…, C)
 * @throws {ShapeError} when the shapes disagree, or a slot or position written by the host is outside the cache
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { cachedAttention } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 }), i32 = { dtype: "i32" } as const;
 * const cache = device.tensor([0, 10, 0, 0], [1, 1, 2, 2, 1]); // 1 slot, 2 positions; at position 0: key 0, value 10
 * const slot = device.tensor([0], [1], i32), position = device.tensor([1], [1], i32);
 * const qkv = device.tensor([1, 0, 30], [1, 3]);
 * assertEquals([...await cachedAttention(qkv, cache, { slot, position }).data()], [20]); // the mean of both values
 * assertEquals([...await cache.data()], [0, 10, 0, 30]);
 * device.close();
 * ```
 */
export function cachedAttention(qkv: Tensor, cache: Tensor, { slot, position }: Places): Tensor {
  using scope = qkv.device.scope("cachedAttention");
  const [slots, heads, S, , width] = cache.shape, C = heads * width, N = qkv.size / (3 * C);
  const refuse = (why: string) =>
    new ShapeError(`Cannot apply cachedAttention to [${qkv.shape}] and [${cache.shape}]: ${why}`);
  if (cache.shape.length !== 5 || width > 256 || S > MOST_PLACES) {
    throw refuse(`the cache is expected as [slots,heads,S,2,width], with S up to ${MOST_PLACES} and width up to 256`);
  }
  if (qkv.shape.at(-1) !== 3 * C) throw refuse(`the last axis is expected as 3 · ${heads} heads · ${width} = ${3 * C}`);
  const checked = (name: string, numbers: Tensor, least: number, end: number) => {
    const { bounds } = numbers.storage.block; // defined if the host wrote the numbers
    if (bounds && !(bounds.least >= least && bounds.greatest < end)) {
      const wrong = bounds.least < least ? bounds.least : bounds.greatest;
      throw refuse(`a token's ${name} is ${wrong}, expected ${least} to ${end - 1}`);
    }
    return numbers.shape.length === 1 ? numbers : numbers.alias([numbers.size]);
  };
  const at = { slot: checked("slot", slot, -1, slots), position: checked("position", position, 0, S) };
  const y = launch(attentionCached, { qkv: qkv.alias([N, 3, heads, width]), ...at, cache }).y.alias([
    ...qkv.shape.slice(0, -1),
    C,
  ]);
  record("cachedAttention", y, [qkv], [], () => {
    throw new TypeError(
      "Cannot apply backward to cachedAttention: it has no derivative; train with causalSelfAttention",
    );
  });
  return scope.keep(y);
}
