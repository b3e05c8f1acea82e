import { attentionBackward, attentionForward } from "../../kernels/attention/kernel.ts";
import { record } from "../engine/autograd.ts";
import { ShapeError } from "../errors.ts";
import { launch } from "../engine/launch.ts";
import type { Tensor } from "../engine/tensor.ts";
import { dropoutArguments, type DropoutOptions } from "./dropout.ts";

/**
 * Causal self-attention: softmax(q · kᵀ / √hs) · v in each head, where a token sees itself and the tokens before it.
 * Like `torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)`, together with
 * nanoGPT's lines around it that split qkv into heads and join the heads again (Vaswani et al. 2017, arXiv:1706.03762).
 * No T×T matrix is stored.
 *
 * With `starts`, a row can hold several documents, which do not see each other: token t sees the tokens starts[t] to t,
 * as with a block-diagonal `attn_mask` in PyTorch. A document's output and gradient are the same as if it had a
 * row to itself, apart from rounding, because numbers are added in another order. Dropout's mask depends on the index in
 * the row, so it changes if a document is moved.
 *
 * @param qkv f32 (B, T, 3C): queries, keys and values side by side, each (B, T, nh, hs)
 * @param options.heads number of heads: nh
 * @param options.dropout dropout of the attention probabilities; default: none
 * @param options.starts i32 (B, T): for each token, the index in its row at which its document begins. It is at most
 *   the token's own index and never decreases along a row. Default: 0 for all
 * @returns f32 (B, T, C)
 * @throws {ShapeError} when qkv is not (B, T, 3C), C is not a multiple of the heads, hs exceeds 256, `starts` is not
 *   (B, T), or a start written by the host is not from 0 to T − 1. Starts computed on the device are not checked but
 *   clamped to the range from 0 to the token's own index
 * @throws {ConfigError} when the dropout's p is not from 0 to 1
 * @see https://pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { causalSelfAttention } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 });
 * // Two tokens, one head of width 1, as (q, k, v). All keys are 0, so a token gets the mean of the values that it sees.
 * const qkv = device.tensor([1, 0, 10, 1, 0, 30], [1, 2, 3]);
 * assertEquals([...await causalSelfAttention(qkv, { heads: 1 }).data()], [10, 20]);
 * device.close();
 * ```
 * @example The same computation in single operations, as in nanoGPT's model.py without flash attention
 * ```ts
 * import { assertAlmostEquals } from "@std/assert";
 * import { createDevice } from "@nanogpt/ts";
 * import { causalSelfAttention, matmul, mul, reshape, slice, softmax, transpose, where } from "@nanogpt/ts/ops";
 *
 * const device = await createDevice("cpu", { threads: 1 }), [B, T, C, nh] = [2, 5, 6, 3], hs = C / nh;
 * const qkv = device.tensor(Float32Array.from({ length: B * T * 3 * C }, (_, i) => Math.sin(i)), [B, T, 3 * C]);
 * const seen = device.tensor(Array.from({ length: T * T }, (_, i) => Number(i % T <= i / T)), [T, T], { dtype: "i32" });
 * const never = device.tensor([-Infinity], []);
 *
 * const [q, k, v] = [0, C, 2 * C].map((start) => { // each (B, nh, T, hs)
 *   const part = slice(qkv, { axis: 2, start, end: start + C }); // (B, T, C)
 *   return transpose(reshape(part, [B, T, nh, hs]), [1, 2]);
 * });
 * const scores = mul(matmul(q, transpose(k, [2, 3])), device.tensor([1 / Math.sqrt(hs)], [])); // (B, nh, T, T)
 * const masked = where(seen, scores, never); // a token sees itself and the tokens before it
 * const weights = softmax(masked); // each row adds up to 1
 * const y = reshape(transpose(matmul(weights, v), [1, 2]), [B, T, C]); // (B, nh, T, hs) to (B, T, C)
 *
 * const fused = await causalSelfAttention(qkv, { heads: nh }).data();
 * for (const [i, value] of (await y.data()).entries()) assertAlmostEquals(fused[i], value, 1e-6);
 * device.close();
 * ```
 */
export function causalSelfAttention(
  qkv: Tensor,
  { heads, dropout = { p: 0, seed: 0, offset: 0, stream: 0 }, starts }: {
    heads: number;
    dropout?: DropoutOptions;
    starts?: Tensor;
  },
): Tensor {
  const { packed, C, rows } = shapes(qkv.shape, heads), out = [rows[0], rows[1], C];

  using scope = qkv.device.scope("causalSelfAttention");
  if (starts) checkStarts(qkv, starts);
  const { offset, params } = dropoutArguments("causalSelfAttention", qkv, dropout);
  const { y, statistics } = launch(attentionForward, { qkv: qkv.alias(packed), offset, starts }, params);
  const result = y.alias(out);
  record("causalSelfAttention", result, [qkv], [qkv, offset, starts, y, statistics], (dout, [into]) => {
    const saved = { qkv: qkv.alias(packed), offset, starts, y, statistics };
    const { dqkv } = launch(attentionBackward, { dy: dout.alias(rows), ...saved, dqkv: into?.alias(packed) }, params);
    return [dqkv.alias(qkv.shape)];
  });
  return scope.keep(result);
}

/**
 * Checks the shape of `starts` and, if the host wrote them, their range. The kernel clamps what is not checked here.
 */
function checkStarts({ shape }: Tensor, starts: Tensor): void {
  const [B, T] = shape, { bounds } = starts.storage.block;
  const refuse = (why: string) => new ShapeError(`Cannot apply causalSelfAttention to [${shape}]: ${why}`);
  if (`${starts.shape}` !== `${[B, T]}`) throw refuse(`starts are [${starts.shape}], expected [${B},${T}]`);
  const wrong = bounds && [bounds.least, bounds.greatest].find((start) => start < 0 || start >= T);
  if (wrong !== undefined) throw refuse(`a token's document starts at ${wrong}, expected 0 to ${T - 1}`);
}

/** Splits C into heads and width: `packed` is qkv's shape, `rows` is the shape of the result. */
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
