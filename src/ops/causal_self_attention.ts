import { attentionBackward, attentionForward } from "../../kernels/attention/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { dropoutArguments, type DropoutOptions } from "./dropout.ts";

/**
 * softmax(q · kᵀ / √hs) · v of each head, a token seeing itself and those before it, as
 * `torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)` between nanoGPT's `split`
 * and its reassembly of the heads (Vaswani et al. 2017, arXiv:1706.03762). No T×T matrix is stored.
 *
 * @param qkv f32 (B, T, 3C): queries, keys and values side by side, each (B, T, nh, hs)
 * @param options.heads how many heads C is divided into: nh
 * @param options.dropout of the probabilities, drawn from Philox; none where left out
 * @returns f32 (B, T, C)
 * @throws {ShapeError} when qkv is not (B, T, 3C), C is not a multiple of the heads, or more than 256 times as many
 * @throws {ConfigError} when the dropout's p is not from 0 to 1
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { causalSelfAttention } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * // Two tokens, one head of width 1, as (q, k, v). All keys are 0, so a token takes the mean of the values it sees.
 * const qkv = device.tensor([1, 0, 10, 1, 0, 30], [1, 2, 3]);
 * assertEquals([...await causalSelfAttention(qkv, { heads: 1 }).data()], [10, 20]);
 * device.close();
 * ```
 */
export function causalSelfAttention(
  qkv: Tensor,
  { heads, dropout = { p: 0, seed: 0, offset: 0, stream: 0 } }: { heads: number; dropout?: DropoutOptions },
): Tensor {
  const { packed, C, rows } = shapes(qkv.shape, heads), out = [rows[0], rows[1], C];

  using scope = qkv.device.scope("causalSelfAttention");
  const { offset, params } = dropoutArguments("causalSelfAttention", qkv, dropout);
  const { y, max, sum } = launch(attentionForward, { qkv: qkv.alias(packed), offset }, params);
  const result = y.alias(out);
  record("causalSelfAttention", result, [qkv], [qkv, offset, y, max, sum], (dout, [into]) => {
    const saved = { qkv: qkv.alias(packed), offset, y, max, sum };
    const { dqkv } = launch(attentionBackward, { dy: dout.alias(rows), ...saved, dqkv: into?.alias(packed) }, params);
    return [dqkv.alias(qkv.shape)];
  });
  return scope.keep(result);
}

/** (B, T, 3C) with every size apart, and (B, T, C) so. */
function shapes(shape: readonly number[], heads: number) {
  const [B, T, C3] = shape, C = C3 / 3, width = C / heads;
  if (shape.length !== 3 || !Number.isInteger(C) || !Number.isInteger(width) || heads < 1 || width > 256) {
    throw new ShapeError(
      `Cannot apply causalSelfAttention to [${shape}] with ${heads} heads: ` +
        "expected [B,T,3·heads·width] with a width of at most 256",
    );
  }
  return { C, packed: [B, T, 3, heads, width], rows: [B, T, heads, width] };
}
